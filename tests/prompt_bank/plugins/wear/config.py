"""The configuration: that of CLIP, and the kind of texts that are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from zsad.methods.clip.config import Config as ClipConfig


@dataclass(frozen=True)
class Config(ClipConfig):
    """Keys of ``wear.*``."""

    prompt_kind: ClassVar[str] = "wear"
