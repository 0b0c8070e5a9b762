"""CoCoOp: CoOp whose context is shifted by what the image shows."""
