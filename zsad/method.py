"""The contract between a method and the framework.

A method is a LightningModule that declares what it reads (:meth:`Method.feature_request`),
prepares text once per category, scores a batch of features and states how its anomaly map is
built.  A trained one adds its losses and its training phases.  It never loads an image, owns
an encoder, enlarges or smooths a map, computes a metric, writes a file, or sees a label while
it scores.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from zsad.config.method_config import MethodConfig
from zsad.errors import RequestError, WeightsError
from zsad.runtime.boxes import BoxRule
from zsad.torchvision_compat import lightning
from zsad.types import (
    BackboneInfo,
    BuiltMaps,
    Category,
    Explanation,
    FeatureRequest,
    ImageFeatures,
    MapSpec,
    PromptView,
    Sample,
    ScoreContext,
    Scored,
    Scores,
    Tap,
    TextT,
    TrainBatch,
)

if TYPE_CHECKING:
    from zsad.backbones.text import TextEncoder
    from zsad.registry import MethodEntry

ConfigT = TypeVar("ConfigT", bound=MethodConfig)
TrainingInput = tuple[ImageFeatures, TrainBatch, ScoreContext[Any]]


@dataclass(frozen=True)
class CosineRate:
    """Factor of the learning rates by epoch (from 0): ``warmup_factor`` for ``warmup_epochs``
    epochs, then a cosine that begins at 1.

    The schedule of the CoOp family's training code: the cosine of ``epochs`` epochs starts after
    the warm-up, so that the last epochs of it are never reached.
    """

    epochs: int
    warmup_epochs: int = 0
    warmup_factor: float = 1.0

    def __call__(self, epoch: int) -> float:
        if epoch < self.warmup_epochs:
            return self.warmup_factor
        return (1 + math.cos(math.pi * (epoch - self.warmup_epochs) / self.epochs)) / 2


@dataclass(frozen=True)
class TrainPhase:
    """One stage of a method's training.

    ``parameters``: prefixes of the trainable names of this phase (others are frozen).
    ``optimizer`` builds the optimiser from the named trainable parameters.
    ``gradient_clip``: L2 norm, 0 = off.  ``rate``: factor of the optimiser's learning rates in an
    epoch (from 0), such as :class:`CosineRate`; None: constant rates.  ``step_rate``: the same for
    every step of the optimiser, of the step in the phase (from 0) and the steps of an epoch; it
    goes on top of ``rate``.
    """

    name: str
    epochs: int
    batch_size: int
    parameters: tuple[str, ...]
    optimizer: Callable[[Mapping[str, torch.nn.Parameter]], torch.optim.Optimizer]
    gradient_clip: float = 0.0
    rate: Callable[[int], float] | None = None
    step_rate: Callable[[int, int], float] | None = None


def chosen_blocks(
    method: str, layers: str | Sequence[int], backbone: BackboneInfo
) -> tuple[int, ...]:
    """Return the 1-based blocks that a method's key ``layers`` names, in order: ``stages`` = the
    backbone's four feature layers, or block numbers.

    Raises :class:`RequestError` for a block that the backbone does not have.
    """
    named = backbone.stages if isinstance(layers, str) else tuple(layers)
    if not named or any(not 1 <= int(n) <= backbone.depth for n in named):
        raise RequestError(
            f"{method}.layers={list(named)} does not fit backbone '{backbone.name}'; "
            f"it has blocks 1..{backbone.depth}"
        )
    return tuple(sorted({int(n) for n in named}))


@dataclass(frozen=True)
class BoxRequest:
    """What a method asks of the detector: ``phrases`` by ``Category.key``, thresholds."""

    phrases: Mapping[str, Sequence[str]]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class ImportedCheckpoint:
    """An official checkpoint, translated: our state, config values that it implies, notes."""

    state: dict[str, Tensor]
    config: dict[str, Any]
    report: list[str]


class Method(lightning.LightningModule, Generic[ConfigT, TextT]):
    """Base of all methods: ``class Mine(Method[Config, Text])`` with its config class and what
    it prepares per category (None for a method that reads no text).

    Sub-classes set :attr:`name` and take ``(config, backbone)``.
    """

    name: ClassVar[str] = ""

    def __init__(self, config: ConfigT, backbone: BackboneInfo) -> None:
        super().__init__()
        self.config: ConfigT = config
        self.backbone = backbone
        self.revision = 1  # of what the method computes; see zsad.registry.MethodEntry
        self.trained_from: dict[str, Any] = {}  # the file of its state, and what is known of that
        self.masks = True  # whether its maps are good for masks; see there, too
        self.phase: str = ""  # name of the training phase that runs, set by the engine
        self.auxiliary: tuple[str, ...] = ()  # datasets that it is trained on, set by the engine
        self.facts: dict[str, Any] = {}  # of the training that made the loaded state

    # -------------------------------------------------------------------- every method
    @abstractmethod
    def feature_request(self) -> FeatureRequest:
        """Say which taps of which encoder variant :meth:`score` and :meth:`losses` read."""

    def training_request(self) -> FeatureRequest:
        """Say what :meth:`losses` reads where that is more or less; of the same variant."""
        return self.feature_request()

    @abstractmethod
    def prepare_text(self, categories: Sequence[Category], text: TextEncoder) -> dict[str, TextT]:
        """Encode everything that does not depend on the image, by ``Category.key``.

        Called once per run and dataset, without gradients, after training.
        """

    @abstractmethod
    def score(self, features: ImageFeatures, context: ScoreContext[TextT]) -> Scores:
        """Score a batch of features.

        It is a pure function: nothing of the method changes, equal arguments give equal scores,
        and an image's scores depend on no other image of the batch (but see :attr:`transductive`
        and :attr:`carries`).  So it may be called again, with fewer images, when memory runs out.
        """

    @abstractmethod
    def map_spec(self) -> MapSpec:
        """Say how the dense-map core builds the anomaly map from :meth:`score`'s maps."""

    def image_score(self, scores: Scores, built: BuiltMaps) -> Tensor:
        """Return the final image score [B]; the default is ``scores.image``."""
        return scores.image

    @property
    def stretches_maps(self) -> bool:
        """True if the maps of a category are brought to one scale, from 0 to 1 over all of them,
        once its images are known: where :attr:`stretches` is.  No figure of a category moves."""
        return False

    def over_category(self, scores: Tensor, info: Mapping[str, Tensor]) -> Tensor:
        """Return the final image scores [N] of all images of a category, from what
        :meth:`image_score` gave each [N] and their figures ``Scores.info`` [N].

        Called where :attr:`stretches` says so, for the test images of one category together.
        """
        return scores

    def explain(self, scored: Scored[TextT], k: int = 5) -> list[list[Explanation]]:
        """Return up to ``k`` reasons of each label per image, best first; the default has none.

        Reasons of label ``normal`` are shown for a picture that is called normal, the others for
        one that is called anomalous (:mod:`zsad.components.reasons`).  A text is for somebody who
        knows neither the method nor its paper.
        """
        return [[] for _ in range(scored.batch_size)]

    def prompt_views(self, scored: Scored[TextT]) -> list[PromptView]:
        """Return what each prompt says of each image: one :class:`PromptView` per image.

        For methods whose ``config.yaml`` says ``shows_prompts: true``; others have none.
        """
        raise TypeError(f"method '{self.name}' shows no single prompts")

    # ------------------------------------------------------------------- optional needs
    def views(self, images: Tensor) -> Iterable[Tensor]:
        """Return further views of images [B, 3, S, S] as the encoder takes them, each as large.

        Their :meth:`view_taps` are in ``context.views``, in this order.  Each is a pass of its own.
        Not for a :attr:`transductive` method.  Where :meth:`feature_request` asks for ``halves`` of
        pictures, ``context.views`` holds the right squares instead; not for a trained method.
        """
        return ()

    def view_taps(self) -> frozenset[Tap]:
        """What :meth:`score` reads of further views."""
        return frozenset()

    @property
    def shots(self) -> int:
        """Normal reference images per category (few-shot); 0 = zero-shot."""
        return self.config.shots

    @property
    def transductive(self) -> bool:
        """True if a score depends on all test images of its category: :meth:`score` needs
        ``context.population``, or :meth:`over_category` has the last word."""
        return self.stretches

    @property
    def stretches(self) -> bool:
        """True if image scores are final only when those of the whole category are known."""
        return False

    @property
    def carries(self) -> bool:
        """True if an image is scored with what the image before it left.

        :meth:`score` then takes the images in order, starts from ``context.carry`` and returns in
        ``Scores.carry`` what the next image needs, by ``Category.key``; neither is changed in
        place, and where a batch ends makes no difference.  Every category begins anew.  Such a
        method sees a category in the order of its index and never in portions, and a category
        that was interrupted is scored again from its first image.
        """
        return False

    def box_request(self, categories: Sequence[Category]) -> BoxRequest | None:
        """Say what to ask a detector; None: no boxes wanted."""
        return None

    def box_rule(self, category: Category) -> BoxRule | None:
        """Say which boxes count, for a recorded graph whose boxes are found later: the method then
        takes :attr:`ScoreContext.cells`, and leaves to the map what boxes cover.  None: it has no
        use for boxes, or not in this way."""
        return None

    def run_info(
        self, text: Any = None, means: Mapping[str, float] | None = None
    ) -> dict[str, Any]:
        """Figures worth a place in the record (prompt counts, kept shares, own readings).

        ``text``: what :meth:`prepare_text` returned for the category.  ``means``: the means over
        its images of what :attr:`Scores.info` said of each, and ``images``, how many there were.
        """
        return {}

    # ------------------------------------------------------------------ trained methods
    def phases(self) -> list[TrainPhase]:
        """Training phases in order; empty for a training-free method."""
        return []

    @property
    def needs_masks(self) -> bool:
        """Whether training needs the mask of every anomalous image; if not, :meth:`losses` finds
        unknown ones in ``TrainBatch.has_mask``."""
        return True

    def losses(
        self, features: ImageFeatures, batch: TrainBatch, context: ScoreContext[TextT]
    ) -> dict[str, Tensor]:
        """Return named scalar losses of one batch; the key ``total`` is minimised."""
        raise TypeError(f"method '{self.name}' is training-free")

    def epoch_samples(
        self, samples: Sequence[Sample], phase: TrainPhase, epoch: int, seed: int
    ) -> Sequence[Sample] | None:
        """Say which training images an epoch visits, in order; None: all, shuffled by the engine.

        Must be a pure function of its arguments.  A sample that is not in ``samples`` (a mosaic,
        say) needs a URI with a registered reader, and a ``uid`` of its own.
        """
        return None

    @property
    def adds_anew(self) -> bool:
        """Whether what :meth:`epoch_samples` adds differs from epoch to epoch, so that its features
        are not worth keeping."""
        return False

    @property
    def needs_partners(self) -> bool:
        """Whether :meth:`losses` compares every image with a normal one of its category, whose
        features it finds in ``context.paired``; another one in every epoch."""
        return False

    def begin_training(
        self,
        categories: Sequence[Category],
        captions: Mapping[str, Sequence[str]],
        text: TextEncoder,
    ) -> None:
        """Prepare what depends on the training set as a whole; called before the first phase
        and again after a resume.  ``captions``: sentences by ``Category.key``, as the config's
        :attr:`~zsad.config.method_config.MethodConfig.caption_source` asks for."""

    def training_facts(self, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Figures of a finished training that belong in the checkpoint and every record made
        with it; they come back as :attr:`facts`.

        ``history``: one row per epoch with ``phase``, ``epoch``, ``steps`` and the mean of every
        term of :meth:`losses`.  The values are ready for JSON.
        """
        return {}

    def trained_state(self) -> dict[str, Tensor]:
        """Everything that a checkpoint must hold: all parameters and persistent buffers.

        Of a method on the CPU they are the same memory, which the next step writes to: clone what
        is to be kept (:func:`zsad.checkpoints.save` does so)."""
        return {k: v.detach().cpu() for k, v in self.state_dict().items()}

    @classmethod
    def import_official(
        cls, state: object, config: ConfigT, backbone: BackboneInfo
    ) -> ImportedCheckpoint:
        """Translate a released checkpoint (already loaded safely: tensors and plain containers).

        Raises :class:`zsad.errors.WeightsError` with missing and unexpected keys.
        """
        raise TypeError(f"method '{cls.name}' has no official checkpoints")

    # ----------------------------------------------------------------- Lightning's hooks
    def parameters_of_phase(self, phase: TrainPhase) -> dict[str, torch.nn.Parameter]:
        """Named parameters that ``phase`` trains."""
        chosen = {n: p for n, p in self.named_parameters() if n.startswith(phase.parameters)}
        if not chosen:
            raise ValueError(f"phase '{phase.name}' of '{self.name}' trains no parameter")
        return chosen

    def current_phase(self) -> TrainPhase:
        """The phase whose name is :attr:`phase`."""
        return next(p for p in self.phases() if p.name == self.phase)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        phase = self.current_phase()
        return phase.optimizer(self.parameters_of_phase(phase))

    def training_step(self, batch: TrainingInput, batch_idx: int) -> dict[str, Any]:
        """``batch`` is made by the training engine."""
        features, targets, context = batch
        losses = self.losses(features, targets, context)
        return {"loss": losses["total"], "terms": {k: v.detach() for k, v in losses.items()}}

    def freeze_all_but(self, names: Iterable[str]) -> None:
        """Leave gradients on for the named parameters only."""
        wanted = set(names)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in wanted)


AnyMethod = Method[Any, Any]  # for code that serves all methods


def stretched(scores: Tensor, over: Tensor) -> Tensor:
    """Bring ``scores`` to the scale on which ``over`` [N] runs from 0 to 1; all 0 where it does
    not vary."""
    low, high = over.amin(), over.amax()
    return (scores - low) / (high - low) if high > low else torch.zeros_like(scores)


def new_method(
    entry: MethodEntry, config: MethodConfig, info: BackboneInfo, seed: int = 0, target: str = ""
) -> AnyMethod:
    """Build the method of ``entry``, to be evaluated on the dataset ``target`` ("": none).

    Its initial parameters are a function of the seed alone; the caller's random numbers stay as
    they were.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of no device: methods are built on the CPU
        method = entry.load()(config.for_target(target), info)
    method.revision = entry.revision
    method.masks = entry.masks
    return method


def feature_request(
    method: AnyMethod, image_size: int, *, training: bool = False
) -> FeatureRequest:
    """Return the method's request, or that of its ``training``, with the image size filled in: the
    run's, else the method's own, else the backbone's.

    Raises :class:`WeightsError` unless the run's size is a multiple of the patch.  A method's own
    need not be one: released MVFA-AD sees 17 x 17 patches of 14 of its 240 pixels.
    """
    request = method.training_request() if training else method.feature_request()
    own = request.variant.image_size
    size = image_size or own or method.backbone.image_size
    if size % method.backbone.patch and size != own:
        raise WeightsError(
            f"image size {size} is not a multiple of the patch size {method.backbone.patch} of "
            f"{method.backbone.name}; choose another backbone.image_size"
        )
    return replace(request, variant=replace(request.variant, image_size=size))
