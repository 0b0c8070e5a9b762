"""The nouns that pass between the rooms of the framework.

Letters in shapes, here and in every docstring: B batch, C categories, K layers, T prompts,
L patch tokens (= h*w), S sequence positions, h x w patch grid, H x W pixels, D visual width,
E joint embedding width, W text width.  Pairs are always ordered (normal, anomalous).

Torch is imported for type checkers only: planning a run must not need it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

from zsad.errors import counted
from zsad.types.boxes import Boxes
from zsad.types.maps import BuiltMaps, Fuse, MapSpec, Scores
from zsad.types.prompt_views import PromptView

if TYPE_CHECKING:
    from torch import Tensor

    from zsad.backbones import ImageEncoder, TextEncoder
    from zsad.backbones.engines.heads import HeadEngine

__all__ = [
    "BackboneInfo",
    "Boxes",
    "BuiltMaps",
    "Category",
    "EncoderVariant",
    "Explanation",
    "FeatureRequest",
    "Fuse",
    "ImageFeatures",
    "MapSpec",
    "Names",
    "PromptView",
    "Rows",
    "Sample",
    "ScoreContext",
    "Scored",
    "Scores",
    "Tap",
    "TextT",
    "TrainBatch",
]

Rows = slice | list[int]  # which images of a batch
TextT = TypeVar("TextT")  # what a method prepares per category


# ---------------------------------------------------------------------------- backbone
class Tap(NamedTuple):
    """One tensor that the encoder can expose.  Layers are 1-based: ``layer`` = l is the
    output of the l-th block.  Every token tensor carries the class token in row 0.

    ================  =======================  =================================================
    kind              shape                    meaning
    ================  =======================  =================================================
    cls               [B, E]                   P . ln_post(x_L[0]); not normalised
    cls_raw           [B, E]                   P . x_L[0], without ln_post; not normalised
    tokens            [B, 1+L, D]              x_l, state of the ordinary (q-k) path
    tokens_proj       [B, 1+L, E]              P . ln_post(x_l)
    mid               [B, 1+L, D]              x_l + attn_{l+1}: state inside block l+1, before its
                                               feed-forward part
    vv                [B, 1+L, D]              VV_s(l) = x_{s-1} + sum_{j=s..l} a_j  (CLIP Surgery)
    vv_proj           [B, 1+L, E]              P . ln_post(VV_s(l))
    vv_ffn            [B, 1+L, D]              y + FFN_l(LN2(y)) with y = x_{l-1} + a_l
    values            [B, 1+L, D]              v of block l (after its input layer norm)
    values_proj       [B, 1+L, E]              P . ln_post(O(v)) of block l  (MaskCLIP)
    values_norm       [B, 1+L, D]              ln_post(O(v)) of block l: values_proj before P
    values_block      [B, 1+L, E]              P . ln_post(y + FFN_l(LN2(y))), y = x_{l-1} + O(v)
    pre_tokens        [B, 1+L, D]              patch embedding + position, before ln_pre
    window            [B, M, E]                class embedding of every k x k window (token subset,
                                               stride 1, raster order), ``layer`` = k;
                                               P . ln_post, not normalised
    window_values     [B, M, 1+k*k, E]         ``values_proj`` of the last block inside each window
                                               pass; ``layer`` = k; window_values_norm
                                               [.., D] and window_values_block likewise
    window_pixels     [B, M, E]                as ``window``, but computed the naive way: patches
                                               outside the window are zeroed, full sequence kept
    ================  =======================  =================================================
    """

    kind: str
    layer: int = 0
    start: int = 0


@dataclass(frozen=True, order=True)
class EncoderVariant:
    """What changes the numbers of a forward pass; requests of equal variant share one pass.

    ``pos_interp``: ``bicubic_aa`` (open_clip's own), ``bicubic`` (released FiLo) or ``bilinear``
    (released AnomalyCLIP and FAPrompt).  ``activation``: ``weights`` (the one the weights were
    trained with) or ``gelu`` (released FiLo, both towers).  ``image_size``: pixels, 0 = the
    backbone's own.  ``input``: ``normalised`` by the weights' mean and deviation, or ``unit`` =
    values in [0, 1] as they are (released MVFA-AD).  ``resize``: the filter that brings a picture
    to ``image_size``: that of the ``weights``, or ``bilinear`` (released AnoVL).  ``decoding``:
    what is resized, ``rgb`` on black, or what a file stores, without its alpha (``released`` FiLo,
    FAPrompt and AnomalyCLIP).  Also a group of config keys, ``encoder.*``.
    """

    image_size: int = 0
    pos_interp: Literal["bicubic_aa", "bicubic", "bilinear"] = "bicubic_aa"
    activation: Literal["weights", "gelu"] = "weights"
    input: Literal["normalised", "unit"] = "normalised"
    resize: Literal["weights", "bilinear"] = "weights"
    decoding: Literal["rgb", "released"] = "rgb"


@dataclass(frozen=True)
class FeatureRequest:
    """The taps that a method reads, and the encoder variant it reads them from.  ``frame``: of the
    ``whole`` picture in a square, or of ``halves``, a left and a right square of its height."""

    taps: frozenset[Tap]
    variant: EncoderVariant = EncoderVariant()
    frame: Literal["whole", "halves"] = "whole"

    @classmethod
    def of(cls, *taps: Tap, variant: EncoderVariant | None = None) -> FeatureRequest:
        return cls(frozenset(taps), variant or EncoderVariant())

    @classmethod
    def merge(cls, requests: Iterable[FeatureRequest]) -> FeatureRequest:
        """Union of requests.  Raises ``ValueError`` unless all variants are equal."""
        items = list(requests)
        others = {(r.variant, r.frame) for r in items}
        if len(others) != 1:
            raise ValueError(f"cannot merge requests of {len(others)} encoder variants")
        return cls(frozenset().union(*(r.taps for r in items)), *others.pop())


@dataclass(frozen=True)
class BackboneInfo:
    """What a method may know about the backbone: sizes, stages, provenance.  No weights."""

    name: str
    title: str
    image_size: int  # pixels, of one side
    patch: int  # pixels
    depth: int  # visual blocks
    width: int  # D
    embed: int  # E
    text_width: int  # W
    text_depth: int
    context_length: int
    stages: tuple[int, ...]  # the four feature layers, 1-based
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    activation: str = "quick_gelu"
    vv_first: int = 0  # first v-v block that the weights were made for; 0: see vv_start
    weights_source: str = ""  # "bundled", "random", "file:<name>", "hub:<repository>@<commit>"
    weights_sha256: str = ""
    weights_grade: str = ""  # what the content is: see zsad.backbones.known_weights
    weights_name: str = ""  # of published weights, by content; "" for unknown ones
    banner: str = ""  # what every output has to say of the weights, else ""
    demo: bool = False  # the bundled demonstration backbone
    random: bool = False  # random weights, asked for explicitly
    native_size: int = 0  # pixels that the weights' position table is made for, 0: unknown
    logit_scale: float = 100.0  # factor of cosines that the weights were trained with

    def grid(self, image_size: int = 0) -> tuple[int, int]:
        """Patch grid (h, w) of a square image of ``image_size`` pixels (0: the default)."""
        side = (image_size or self.image_size) // self.patch
        return side, side

    def vv_start(self, blocks_of_24: int) -> int:
        """First block (1-based) of a v-v path over the last ``blocks_of_24`` of 24 blocks,
        scaled to this depth: 19 gives 6 and 18 gives 7 for ViT-L's 24 blocks.

        For a backbone whose weights were made for one start (``vv_first``) the longest published
        path, 19 blocks, begins there, and others are scaled in proportion.
        """
        longest = self.depth * 19 / 24
        if self.vv_first:
            longest = self.depth - self.vv_first + 1
        count = round(blocks_of_24 * longest / 19)
        return self.depth - max(1, min(count, self.depth)) + 1


@dataclass
class ImageFeatures:
    """Features of a batch: ``features[tap]`` as documented at :class:`Tap`."""

    grid: tuple[int, int]
    data: dict[Tap, Tensor]

    def __getitem__(self, tap: Tap) -> Tensor:
        try:
            return self.data[tap]
        except KeyError:
            have = ", ".join(str(tuple(t)) for t in sorted(self.data))
            raise KeyError(f"feature {tuple(tap)} was not requested; present: {have}") from None

    def patches(self, tap: Tap) -> Tensor:
        """The tap without its class token: [B, L, ...]."""
        return self[tap][:, 1:]

    @property
    def batch_size(self) -> int:
        return next(iter(self.data.values())).shape[0]

    def to(self, *args: Any, **kwargs: Any) -> ImageFeatures:
        return ImageFeatures(self.grid, {k: v.to(*args, **kwargs) for k, v in self.data.items()})

    def select(self, index: Any) -> ImageFeatures:
        """Rows of the batch: a slice, a list of indices or an index tensor."""
        from zsad.on_device import picked

        if isinstance(index, (slice, list)):
            return ImageFeatures(self.grid, {k: picked(v, index) for k, v in self.data.items()})
        return ImageFeatures(self.grid, {k: v[index] for k, v in self.data.items()})

    def restrict(self, taps: Iterable[Tap]) -> ImageFeatures:
        return ImageFeatures(self.grid, {t: self[t] for t in taps})

    @classmethod
    def concat(cls, parts: Sequence[ImageFeatures]) -> ImageFeatures:
        import torch

        keys = parts[0].data
        return cls(parts[0].grid, {k: torch.cat([p.data[k] for p in parts]) for k in keys})


# -------------------------------------------------------------------------------- data
Names = Literal["spoken", "released"]  # which name of a category prompts say


@dataclass(frozen=True)
class Category:
    """One evaluation category.  ``key`` is the canonical name ("metal_nut"), ``class_name`` the
    spoken one that prompts use ("metal nut").  ``released_name``: the one that the authors'
    scripts put into prompts, the name of the folder; empty: the key."""

    dataset: str
    key: str
    class_name: str
    domain: Literal["industrial", "medical"] = "industrial"
    kind: Literal["object", "texture"] = "object"
    released_name: str = ""

    def said(self, names: Names) -> str:
        """Return the name that prompts say."""
        return self.class_name if names == "spoken" else self.released_name or self.key


@dataclass(frozen=True)
class Sample:
    """One image of a dataset, before it is opened.

    ``image`` and ``mask`` are file paths, or URIs of a registered reader; ``crop`` = (left, top,
    right, bottom) in pixels cuts a tile out of both.  ``label``: 0 normal, 1 anomalous.  ``mask``
    None: there is none.  ``extra_masks`` are united with it.  ``ignore``: what is not looked at, a
    mask file or (x, y, w, h) in pixels.
    """

    image: str
    label: int
    category: str
    mask: str | None = None
    defect: str = ""
    split: Literal["train", "test"] = "test"
    crop: tuple[int, int, int, int] | None = None
    extra_masks: tuple[str, ...] = ()
    uid: str = ""  # stable name inside the dataset: relative path (+ tile), never absolute
    mask_threshold: int = 0  # grey values above it (of 255) are anomalous
    bits: int = 0  # that deep pictures use, such as 12 of 16; 0: as many as their files hold
    ignore: str | tuple[int, int, int, int] | None = None


# ------------------------------------------------------------------------------ scoring
@dataclass
class Explanation:
    """One reason for a score.  ``similarity`` is a cosine unless ``label`` says otherwise;
    ``region`` = (left, top, right, bottom) as fractions of the image, or None."""

    text: str
    similarity: float
    label: Literal["normal", "anomalous", "region", "prompt"] = "anomalous"
    source: str = "bank"  # bank | llm | vqa | mask | learned | template | detector
    rank: int = 0
    region: tuple[float, float, float, float] | None = None
    note: str = ""


@dataclass
class ScoreContext(Generic[TextT]):
    """What a method's head may look at besides features.  Labels and masks are not in it.

    ``categories``: one per image of the batch.  ``text``: what the method's ``prepare_text``
    returned, by ``Category.key``.  ``references``: normal images of the category (few-shot), by
    ``Category.key``.  ``population``: features of all test images of the category, for transductive
    methods only, and ``population_uids`` their names (empty: unknown).  ``paired``: in training,
    the features of a normal image for every image of the batch, for methods that compare
    (:attr:`Method.needs_partners`).  ``boxes``: detector answers, or None where none was asked for.
    ``uids``: stable names of the images.  ``text_encoder`` and ``image_encoder`` (for methods that
    resume a pass) are those of the method's encoder variant; the framework always gives both.
    ``carry``: what a method that carries state from image to image left with the image before, by
    ``Category.key`` (:attr:`Scores.carry`); a category's first image finds no entry.  ``views``:
    the features of further views of the images, one entry per view with B rows each
    (:meth:`Method.views`); of ``halves`` the right squares, which begin ``shifts`` [B] of a side
    right of the left ones. ``cells``: in a recorded graph, the weights [B, 9] of the cells of a 3x3
    grid in place of boxes, for methods that say how boxes choose them (:meth:`Method.box_rule`).
    ``heads``: who runs the head's large convolutions; None, as in training: torch.
    """

    categories: Sequence[Category]
    text: Mapping[str, TextT]
    text_encoder: TextEncoder = None  # type: ignore[assignment]  # tests of heads leave them out
    image_encoder: ImageEncoder = None  # type: ignore[assignment]
    references: Mapping[str, ImageFeatures] = field(default_factory=dict)
    population: ImageFeatures | None = None
    boxes: Sequence[Boxes | None] | None = None
    uids: Sequence[str] = ()
    population_uids: Sequence[str] = ()
    carry: Mapping[str, Any] = field(default_factory=dict)
    views: Sequence[ImageFeatures] = ()
    shifts: Sequence[float] = ()
    paired: ImageFeatures | None = None
    cells: Tensor | None = None
    heads: HeadEngine | None = None

    def select(self, rows: Rows) -> ScoreContext[TextT]:
        """That of some images of the batch: a slice or a list of indices."""
        count, boxes, uids = len(self.categories), self.boxes, self.uids or None
        return replace(
            self,
            categories=_rows_of(self.categories, rows, count),
            boxes=_rows_of(boxes, rows, count),
            uids=_rows_of(uids, rows, count) or (),
            views=[view.select(rows) for view in self.views],
            shifts=_rows_of(self.shifts or None, rows, count) or (),
            paired=None if self.paired is None else self.paired.select(rows),
            cells=None if self.cells is None else self.cells[rows],
        )


@dataclass
class Scored(Generic[TextT]):
    """One scored batch: all that is known about its B images, with the same rows throughout.

    ``features``: what was read.  ``scores``: what the method returned, maps on the patch grid.
    ``maps`` [B, H, W]: at the model's input size.  ``image_scores`` [B]: of `Method.image_score`,
    on the CPU, where everybody wants them.
    """

    features: ImageFeatures
    context: ScoreContext[TextT]
    scores: Scores
    maps: BuiltMaps
    image_scores: Tensor

    @property
    def batch_size(self) -> int:
        return len(self.image_scores)

    def select(self, rows: Rows) -> Scored[TextT]:
        """Some of the images, in that order; ``ValueError`` if ``parts`` lacks rows of them."""
        from zsad.on_device import picked

        scores, count = self.scores, self.batch_size
        chosen = replace(
            scores,
            maps=[picked(stage, rows) for stage in scores.maps],
            image=picked(scores.image, rows),
            parts={name: _rows_of(part, rows, count) for name, part in scores.parts.items()},
            boxes=_rows_of(scores.boxes, rows, count),
            info={name: picked(values, rows) for name, values in scores.info.items()},
            added=[picked(values, rows) for values in scores.added],
        )
        maps = self.maps.each(lambda planes: picked(planes, rows))
        context, features = self.context.select(rows), self.features.select(rows)
        return Scored(features, context, chosen, maps, self.image_scores[rows])


def _rows_of(values: Any, rows: Rows, count: int) -> Any:
    """Rows of a tensor or a sequence of ``count`` entries; None stays None."""
    if values is None:
        return None
    if len(values) != count:
        raise ValueError(
            f"{counted(len(values), 'entry', 'entries')} for {counted(count, 'image')}; give "
            "one for each"
        )
    if isinstance(values, (list, tuple)):
        return values[rows] if isinstance(rows, slice) else [values[i] for i in rows]
    from zsad.on_device import picked

    return picked(values, rows)


@dataclass
class TrainBatch:
    """Targets of a training batch: ``masks`` [B, 1, H, W] float {0, 1}, ``labels`` [B] int.

    ``has_mask`` [B] bool: whether a mask is known; None: all are.  An unknown one is all zero."""

    masks: Tensor
    labels: Tensor
    has_mask: Tensor | None = None
