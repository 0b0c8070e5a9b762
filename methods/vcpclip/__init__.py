"""VCP-CLIP: prompts that hold the image in place of a name, and text that looks at patches."""
