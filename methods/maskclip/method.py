"""MaskCLIP (Zhou et al., ECCV 2022) as a zero-shot anomaly detector.

In the last block the attention-weighted sum over all tokens is left out: every token keeps its
own value, which passes the output projection, the final norm and the visual projection
(Sec. 3.2).  Skip connection and feed-forward part are left out, too.  Text and image score are
those of ``clip``, so that the two methods differ in their maps alone.
"""

from __future__ import annotations

from typing import ClassVar

from zsad.methods.clip.method import Clip
from zsad.types import Tap


class MaskClip(Clip):
    """Two-prompt CLIP whose patches are the last block's values."""

    name: ClassVar[str] = "maskclip"

    @property
    def dense(self) -> Tap:
        """P . ln_post(O(v)) of the last block."""
        return Tap("values_proj", self.backbone.depth)
