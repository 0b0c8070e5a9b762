"""FAPrompt: compound abnormality prompts with a data-dependent abnormality prior."""
