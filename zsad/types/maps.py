"""What a method's head returns, and how the dense-map core builds anomaly maps of it.

Letters in shapes are those of :mod:`zsad.types`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from zsad.types.boxes import Boxes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Scores:
    """What a method's head returns for a batch, before any enlargement or smoothing.

    ``maps``: one entry per stage, on the patch grid.  Either all are pair *logits* [B, 2, h, w] (a
    softmax over dim 1 gives probabilities) or all are anomaly *values* [B, h, w], in [0, 1] unless
    the method says otherwise; ``kind`` says which.  ``image``: [B], the image score before the
    method's :meth:`image_score` mixes in map maxima.  ``parts``: what :meth:`image_score` or
    :meth:`explain` needs again, one entry per image: tensors [B, ...], lists of B, or None.
    ``boxes``: the detections that protect the map, one entry per image, where the method chose
    among the detector's; None: all of them.  ``info``: figures [B] about the images by name
    (prompts kept, say); their means over a category reach :meth:`Method.run_info`. ``carry``: what
    the next image of a category is scored with, by ``Category.key`` (:attr:`ScoreContext.carry`).
    ``added``: further anomaly values [B, h, w], one per stage, that are enlarged as ``maps`` are
    and added to their probabilities (few-shot distances, say).
    """

    maps: list[Tensor]
    image: Tensor
    kind: Literal["logits", "values"] = "logits"
    parts: dict[str, Any] = field(default_factory=dict)
    boxes: Sequence[Boxes | None] | None = None
    info: dict[str, Tensor] = field(default_factory=dict)
    carry: dict[str, Any] = field(default_factory=dict)
    added: list[Tensor] = field(default_factory=list)


Fuse = Literal["mean", "sum", "harmonic"]


@dataclass(frozen=True)
class MapSpec:
    """How the dense-map core turns :class:`Scores` into anomaly maps.

    ``order``: ``softmax_then_upsample`` or ``upsample_then_softmax`` (logits only).  ``fuse``:
    ``mean``, ``sum`` or ``harmonic`` mean over stages (``weights`` optional, one per stage; a
    harmonic mean has none); what is harmonic is taken at the output size.  ``groups``: the stages
    in runs, each as (how it is fused, how many stages); ``fuse`` and ``weights`` then join the
    groups.  ``norm``: ``none`` or per-image ``minmax`` (ablation only).  ``blur`` of the fused map:
    ``none``, ``gaussian`` (scipy's, reflect, truncate 4) or ``kernel3`` (3x3); ``sigma`` in output
    pixels.
    ``box_factor``: factor outside the union of detected boxes, 1 = no suppression;
    ``box_arithmetic``: ``exact`` or ``released`` (FiLo's integer rectangles); ``box_order``: after
    the blur, or (FiLo's paper) before norm and blur.  ``keep``: what :meth:`Method.image_score`
    also reads, the ``fused`` map before norm and blur, or the ``stages`` before they are fused.
    """

    order: Literal["softmax_then_upsample", "upsample_then_softmax"] = "softmax_then_upsample"
    align_corners: bool = False
    fuse: Fuse = "mean"
    weights: tuple[float, ...] | None = None
    groups: tuple[tuple[Fuse, int], ...] | None = None
    norm: Literal["none", "minmax"] = "none"
    blur: Literal["none", "gaussian", "kernel3"] = "none"
    sigma: float = 0.0
    box_factor: float = 1.0
    box_arithmetic: Literal["exact", "released"] = "exact"
    box_order: Literal["after_blur", "before_blur"] = "after_blur"
    keep: Literal["final", "fused", "stages"] = "final"


@dataclass
class BuiltMaps:
    """``final`` [B, H, W]: the anomaly map.  ``unsuppressed`` [B, H, W]: the same without box
    suppression (the same tensor where no box was applied).

    On request (:attr:`MapSpec.keep`) ``fused`` [B, H, W]: before normalising, smoothing and
    suppressing, and ``stages``: the enlarged probabilities or values [B, H, W] of every stage,
    before weights; None and empty otherwise.
    """

    final: Tensor
    unsuppressed: Tensor
    fused: Tensor | None = None
    stages: list[Tensor] = field(default_factory=list)

    def each(self, change: Callable[[Tensor], Tensor]) -> BuiltMaps:
        """The maps with ``change`` done to every tensor [B, H, W]."""
        fused = None if self.fused is None else change(self.fused)
        stages = [change(stage) for stage in self.stages]
        return BuiltMaps(change(self.final), change(self.unsuppressed), fused, stages)
