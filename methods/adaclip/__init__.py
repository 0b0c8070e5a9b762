"""AdaCLIP: static and dynamic prompts in both towers, and hybrid semantic fusion."""
