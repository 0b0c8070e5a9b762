"""Configuration of ``cocoop``: the keys of ``coop`` (torch-free)."""

from zsad.methods.coop.config import Config

__all__ = ["Config"]
