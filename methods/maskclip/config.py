"""Configuration of ``maskclip``: the keys of ``clip`` (torch-free)."""

from zsad.methods.clip.config import Config

__all__ = ["Config"]
