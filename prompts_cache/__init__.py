"""Generated and curated prompts per category, with their provenance."""
