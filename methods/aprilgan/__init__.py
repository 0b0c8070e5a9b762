"""APRIL-GAN (VAND): four linear layers on patch tokens against a state prompt ensemble."""
