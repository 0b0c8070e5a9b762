"""AnomalyCLIP: object-agnostic prompt learning with deep text tokens and v-v features."""
