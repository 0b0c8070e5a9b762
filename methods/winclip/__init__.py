"""WinCLIP: compositional prompts and window embeddings, zero-shot and with reference images."""
