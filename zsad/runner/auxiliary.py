"""What trained columns learn from: the images, and the state that they already are.  No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zsad import config as cfg
from zsad.backbones.outline import outline
from zsad.checkpoints import bundled
from zsad.checkpoints.account import TrainedOn, account_of
from zsad.data import provenance, splits
from zsad.data.index import DatasetIndex, load_index
from zsad.errors import DataError, WeightsError, ZsadError
from zsad.runner.columns import Column
from zsad.runner.given import is_asked_for
from zsad.runner.request import Request
from zsad.training.identity import checkpoint_path, identity_on, trained_on
from zsad.types import Sample

# Under --limit: training images in all, as a multiple of the limit per category.
QUICK_TRAINING = 4


@dataclass(frozen=True)
class AuxiliaryData:
    """What a trained column is trained on."""

    dataset: str
    index: DatasetIndex
    samples: tuple[Sample, ...]
    part: str
    digest: str

    @property
    def account(self) -> TrainedOn:
        """The same, as trained states name it."""
        return trained_on(self.index, self.samples, self.part)


def auxiliary_samples(request: Request, name: str, part: str = "") -> AuxiliaryData:
    """Index a dataset and choose what is trained on.  Raises :class:`ZsadError`.

    ``part``: of the dataset, "": that of the settings.
    ``limit`` holds for training images, too, and there are about four times ``limit`` of them in
    all: a quick look stays quick, and its records say so.
    """
    index = load_index(name, request.data_root, variant=request.settings.data.variants.get(name))
    index = provenance.checked(request.results, index).calling(request.settings.data.names)
    part = part or request.settings.data.train_part
    chosen = splits.auxiliary(index, part, request.limit, QUICK_TRAINING * request.limit)
    if not chosen:
        raise DataError(f"dataset {name}: no labelled images to train on; choose another dataset")
    return _data(index, chosen, part)


def of_state(
    request: Request, column: Column, data: AuxiliaryData, weights_id: str
) -> AuxiliaryData | None:
    """The images of the state that comes with a column's method, where a run takes that state.

    It does if nobody asked for a training set, if the state is what the column's training on those
    images would make (only ``--limit`` may differ), and if the results folder holds no state of
    the training on ``data``: that one was trained by the user.
    """
    own = bundled.state_of(column.entry, request.settings.backbone.name)
    if own is None or is_asked_for(request, column):
        return None
    try:
        meta = account_of(own)
    except WeightsError:
        return None
    if meta is None or meta.trained_on is None or request.seeds_of(column) != (meta.seed,):
        return None
    mine = training_of(request, column, data, weights_id, meta.seed)
    if checkpoint_path(request.results, column.entry.name, mine).is_file():
        return None
    seen = set(meta.trained_on.uids)
    chosen = [s for s in splits.auxiliary(data.index, data.part) if s.uid in seen]
    found = _data(data.index, chosen, data.part)
    same = training_of(request, column, found, weights_id, meta.seed) == meta.identity
    return found if same else None


def training_of(
    request: Request, column: Column, data: AuxiliaryData, weights_id: str, seed: int, size: int = 0
) -> str:
    """The identity of a column's training on ``data``.  ``size``: the backbone's image size in
    pixels, where neither the settings nor its outline tell it."""
    backbone = request.settings.backbone
    return identity_on(
        column.entry.name,
        column.config,
        (backbone.name, weights_id, backbone.image_size or own_size(backbone.name) or size),
        request.settings_of(column),
        data.account,
        seed,
        column.entry.revision,
        data.index.categories,
    )


def own_size(backbone: str) -> int:
    """A backbone's own image size in pixels; 0 where only its file tells it."""
    try:
        return outline(backbone).image_size
    except ZsadError:
        return 0


def _data(index: DatasetIndex, chosen: Sequence[Sample], part: str) -> AuxiliaryData:
    name = index.spec.name
    digest = cfg.digest([name, index.fingerprint, part, [s.uid for s in chosen]])
    return AuxiliaryData(name, index, tuple(chosen), part, digest)
