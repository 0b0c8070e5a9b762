"""Bayes-PFL: prompts drawn from a learned distribution that follows the image."""
