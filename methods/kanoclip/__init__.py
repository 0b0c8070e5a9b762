"""KAnoCLIP: knowledge-driven prompts, v-v features and bi-directional cross-modal interaction."""
