"""AdaptCLIP: three small adapters at the input and the outputs of CLIP."""
