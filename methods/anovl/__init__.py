"""AnoVL: a domain-aware prompt ensemble on v-v features, with an optional test-time adapter."""
