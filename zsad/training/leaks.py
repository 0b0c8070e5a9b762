"""Nothing is evaluated on what it was trained on: by name, and by what the pictures hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zsad.checkpoints.account import CheckpointMeta
from zsad.checkpoints.released import ReleasedFile
from zsad.data import splits
from zsad.data.contents import twins
from zsad.data.index import DatasetIndex
from zsad.errors import RequestError
from zsad.types import Sample

BY_CONTENT = "by name, file and pixels"
BY_NAME = "checked by name only"
UNKNOWN = "not checked: what it was trained on is not known"


def guard(
    meta: CheckpointMeta | None,
    target: DatasetIndex,
    samples: Sequence[Sample],
    released: ReleasedFile | None = None,
) -> str:
    """Refuse to evaluate a checkpoint on pictures that it was trained on; return what was checked.

    ``meta``: its account, None for an authors' file, of which ``released`` says what it was
    trained on.  Pictures are compared by name, and by content where the account holds that of
    what was trained on (:mod:`zsad.data.contents`; a picture that was compressed again is not
    known again).  Raises :class:`RequestError`.
    """
    data = meta.trained_on if meta else None
    name = target.spec.name
    row = released or (meta.released if meta else None)
    datasets = data.datasets if data else row.trained_on if row else ()
    if not datasets:
        return UNKNOWN
    if data is not None and data.uids:
        splits.guard(data.uids, data.dataset, samples, name)
    elif name in datasets and target.spec.training_split != "train":
        raise RequestError(
            f"the checkpoint was trained on '{name}', which it would be evaluated on; give one "
            f"that was trained on another dataset"
        )
    if meta is None or data is None or not meta.contents:
        return BY_NAME
    if found := twins(meta.contents, samples):
        first = found[0]
        known = data.uids[first.place] if first.place < len(data.uids) else "one of them"
        raise RequestError(
            f"the checkpoint was trained on {len(found)} of the images of '{name}' that it would "
            f"be evaluated on, under other names: {first.uid} is {known} of '{data.dataset}' "
            f"({first.how}); train on other pictures, or take the copies out"
        )
    return BY_CONTENT


def guard_detector(boxes: Mapping[str, Any], target: DatasetIndex) -> None:
    """Refuse boxes of a detector that was fine-tuned on the dataset that is evaluated.

    ``boxes``: what the provider says of itself.  Raises :class:`RequestError`.
    """
    if target.spec.name in str(boxes.get("trained_on") or "").split(" + "):
        raise RequestError(
            f"the detector ({boxes.get('weights') or boxes.get('recognised')}) was fine-tuned on "
            f"'{target.spec.name}', which it would be evaluated on; give the other one in "
            f"grounding.weights"
        )
