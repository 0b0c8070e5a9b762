"""MaskCLIP (Zhou et al., ECCV 2022) as a zero-shot anomaly detector.

In the last block the attention-weighted sum over all tokens is left out: every token keeps its
own value, which passes the output projection, the final norm and the visual projection
(Sec. 3.2).  What becomes of the skip connection and the feed-forward part is not said there:
``value_path`` leaves them out (``proj``) or keeps them, as released (``block``).  Text and image
score are those of ``clip``, so that the two methods differ in their maps alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from zsad.methods.clip.method import Clip
from zsad.methods.maskclip.config import Config
from zsad.types import FeatureRequest, Tap


class MaskClip(Clip):
    """Two-prompt CLIP whose patches are the last block's values."""

    name: ClassVar[str] = "maskclip"
    config: Config

    @property
    def dense(self) -> Tap:
        """P . ln_post of O(v) of the last block, or of y + FFN(LN2(y)) with y = x + O(v)."""
        return Tap(f"values_{self.config.value_path}", self.backbone.depth)

    def feature_request(self) -> FeatureRequest:
        return replace(super().feature_request(), variant=self.config.encoder)
