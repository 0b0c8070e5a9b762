"""Sweeps on a Ray cluster: the driver cuts a plan into shards, workers run them, the store joins
what they made.  Ray is imported when a sweep starts."""
