"""AA-CLIP: residual adapters in both towers, the text's first, then the image's."""
