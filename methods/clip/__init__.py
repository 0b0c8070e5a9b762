"""CLIP itself as an anomaly detector: two prompts, and the CLIP-AC prompt ensembles."""
