"""Configuration of ``maskclip``: the keys of ``clip`` and its own (torch-free)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zsad import config as cfg
from zsad.methods.clip.config import Config as ClipConfig
from zsad.types import EncoderVariant


@dataclass(frozen=True)
class Config(ClipConfig):
    """Keys of ``maskclip.*``: those of ``clip``, and two more.

    ``value_path``: what a patch keeps of its value in the last block.  ``proj``: the value behind
    the output projection alone, the paper's words; ``block``: with the skip connection and the
    feed-forward part, as the released code has it for a transformer.  ``encoder``: the forward
    pass that the features come from.
    """

    value_path: Literal["proj", "block"] = cfg.added("proj")
    encoder: EncoderVariant = cfg.added(default_factory=EncoderVariant)
