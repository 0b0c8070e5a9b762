"""MaskCLIP: dense CLIP on the value path of the last block."""
