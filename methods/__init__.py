"""The methods: one sub-package each, found by its ``config.yaml``."""
