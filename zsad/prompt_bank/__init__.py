"""What language models know about categories: asked once, cached, checked, and read from files.

A run never asks a model.  ``zsad prompts generate`` does, and keeps every answer.
"""
