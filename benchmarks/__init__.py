"""What is measured: dataset definitions, protocols, published numbers, speed benchmarks."""
