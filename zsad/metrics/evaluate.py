"""All metrics of arrays that are already in memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zsad.errors import RequestError, counted
from zsad.metrics import spec
from zsad.metrics.category import CategoryMetrics
from zsad.metrics.spec import Mode

log = logging.getLogger(__name__)

BATCH = 16  # images per update


def evaluate(
    maps: Any,
    masks: Any,
    image_scores: Any,
    labels: Any,
    fpr_limit: float = 0.3,
    mode: Mode = "exact",
    aupro_200: bool = False,
    ignored: Any = None,
) -> dict[str, Any]:
    """Return all metrics of N images, keyed by the names of ``zsad.metrics.spec.METRICS``.

    They are those of every record and those that a run computes on request only, such as IoU-max
    and AUPIMO (None with a reason where fewer than 100,000 normal pixels are there).

    maps [N, H, W] of any float scale; masks [N, H, W] in {0, 1}, None, or a sequence with one
    [H, W] mask or None per image; image_scores [N] of any scale; labels [N] in {0, 1}.  numpy
    arrays, torch tensors or sequences.  ``maps`` None, too, is allowed: no pixel metrics then.
    An anomalous image whose mask is None makes the pixel metrics undefined; an all-zero mask
    counts as it is.  ``ignored``: pixels that no pixel metric looks at, in the forms of ``masks``
    (None: all are looked at); of an image of a list it may be None as well.

    Further keys: ``undefined`` (metric -> reason; such a metric is None), ``notes`` (what cannot be
    meant, such as normal images with marked pixels; they are logged as well), ``n_normal``,
    ``n_anomalous``, and in the ``binned`` mode ``bounds`` (metric -> largest distance to the
    exact value), and ``per_image`` (metric -> one value per image, None where it has none).
    ``aupro_200`` adds the released repositories' approximation of AUPRO.

    Raises :class:`RequestError` where shapes or values do not fit, :class:`CellError` where
    scores are NaN or infinite.
    """
    scores = _numbers("image_scores", image_scores)
    kinds = _binary("labels", labels)
    if scores.dim() != 1 or kinds.shape != scores.shape:
        raise RequestError(
            f"image_scores {_shape(scores)} and labels {_shape(kinds)} must both have shape [N]"
        )
    count = len(scores)
    anomaly_maps = None if maps is None else _planes("maps", _numbers("maps", maps), count)
    truth, has_mask = _masks(masks, anomaly_maps, count)
    hidden = None
    if ignored is not None and anomaly_maps is not None:
        hidden, _ = _masks(ignored, anomaly_maps, count, "ignored")
        _refuse_nothing_left(hidden)
    seen = truth if truth is None or hidden is None else truth & ~hidden
    notes = _marked_normals(seen, kinds) + _hidden_defects(truth, seen, kinds)
    for note in notes:
        log.warning("evaluate: %s", note)
    asked = [m.name for m in spec.METRICS.values() if aupro_200 or not m.stands_for]
    metrics = CategoryMetrics(mode=mode, fpr_limit=fpr_limit, names=asked)
    for start in range(0, count, BATCH):
        part = slice(start, start + BATCH)
        metrics.update(
            None if anomaly_maps is None else anomaly_maps[part],
            None if truth is None else truth[part],
            scores[part],
            kinds[part],
            None if has_mask is None else has_mask[part],
            None if hidden is None else hidden[part],
        )
    result = metrics.compute()
    document: dict[str, Any] = dict(result.metrics)
    document["undefined"] = result.undefined
    document["notes"] = notes
    document["n_normal"] = result.n_normal
    document["n_anomalous"] = result.n_anomalous
    document["per_image"] = result.per_image
    if mode == "binned":
        document["bounds"] = result.bounds
    return document


def _marked_normals(truth: Tensor | None, labels: Tensor) -> list[str]:
    """A note on normal images whose masks mark pixels; none where there are none."""
    if truth is None:
        return []
    marked = truth.flatten(1).any(1).cpu() & (labels.cpu() == 0)
    if not marked.any():
        return []
    first = int(marked.nonzero()[0])
    return [
        f"{int(marked.sum())} normal images have marked pixels in their masks (first: image "
        f"{first}, {counted(int(truth[first].sum()), 'pixel')}): are labels and masks in one order?"
    ]


def _hidden_defects(truth: Tensor | None, seen: Tensor | None, labels: Tensor) -> list[str]:
    """A note on anomalous images of which every marked pixel is ignored; none without them."""
    if truth is None or seen is None:
        return []
    gone = truth.flatten(1).any(1).cpu() & ~seen.flatten(1).any(1).cpu() & (labels.cpu() != 0)
    if not gone.any():
        return []
    first = int(gone.nonzero()[0])
    return [
        f"of {int(gone.sum())} anomalous images every marked pixel is ignored (first: image "
        f"{first}); they still count as anomalous at the image level"
    ]


def _refuse_nothing_left(hidden: Tensor | None) -> None:
    """Raise :class:`RequestError` for an image of which every pixel is ignored."""
    if hidden is not None and bool((whole := hidden.flatten(1).all(1)).any()):
        first = int(whole.nonzero()[0])
        raise RequestError(f"ignored: nothing is left of image {first} to look at")


def _masks(
    masks: Any, maps: Tensor | None, count: int, name: str = "masks"
) -> tuple[Tensor | None, Tensor | None]:
    """Return masks [N, H, W] bool and which images have one [N]; (None, None) without masks."""
    if masks is None or maps is None:
        return None, None
    has_mask = None
    if isinstance(masks, (list, tuple)):
        if len(masks) != count:
            raise RequestError(
                f"{name} has {counted(len(masks), 'entry', 'entries')} for "
                f"{counted(count, 'image score')}"
            )
        has_mask = torch.tensor([m is not None for m in masks], dtype=torch.bool)
        if not has_mask.any():
            return None, None
        blank = np.zeros(tuple(maps.shape[1:]), dtype=bool)
        rows = [blank if m is None else _cpu(m) for m in masks]
        if len({r.shape for r in rows}) > 1:
            shapes = ", ".join(sorted({_shape(r) for r in rows}))
            raise RequestError(f"{name} must all have the shape of the maps; got {shapes}")
        masks = np.stack(rows)
    truth = _planes(name, _binary(name, masks), count)
    if truth.shape != maps.shape:
        raise RequestError(f"{name} {_shape(truth)} must have the shape of maps {_shape(maps)}")
    return truth.bool(), has_mask


def _planes(name: str, value: Tensor, count: int) -> Tensor:
    """Return [N, H, W]; an extra channel axis of one is dropped."""
    if value.dim() == 4 and value.shape[1] == 1:
        value = value[:, 0]
    if value.dim() != 3 or len(value) != count:
        raise RequestError(f"{name} {_shape(value)} must have shape [N, H, W] with N = {count}")
    return value


def _numbers(name: str, value: Any) -> Tensor:
    """Return a real tensor; float64 is kept, other kinds become float32."""
    tensor = _tensor(name, value)
    if tensor.is_complex():
        raise RequestError(f"{name} must hold real numbers, not {tensor.dtype}")
    if tensor.is_floating_point():
        return tensor
    return tensor.double()  # integers: exact below 2^53


def _binary(name: str, value: Any) -> Tensor:
    """Return a tensor of int64 zeros and ones."""
    tensor = _tensor(name, value)
    if tensor.dtype == torch.bool:
        return tensor
    wrong = tensor[(tensor != 0) & (tensor != 1)]
    if wrong.numel():
        raise RequestError(f"{name} must hold 0 and 1 only; found {wrong.reshape(-1)[0].item()}")
    return tensor.to(torch.int64) if tensor.dim() == 1 else tensor.bool()


def _tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    try:
        array = _cpu(value)
    except (TypeError, ValueError, RuntimeError) as error:
        shapes = _shapes(value)
        if len(shapes) > 1:
            raise RequestError(
                f"{name} is not an array of one shape: {' and '.join(shapes[:3])}; scale them to "
                "one size first"
            ) from None
        raise RequestError(f"{name} is not an array of one shape: {error}") from None
    if array.dtype.kind not in "biuf":
        raise RequestError(f"{name} must hold numbers, not {array.dtype}")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    if array.dtype == np.longdouble:
        array = array.astype(np.float64)
    return torch.from_numpy(np.ascontiguousarray(array))


def _cpu(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, Sequence) and value and isinstance(value[0], Tensor):
        return np.stack([v.detach().cpu().numpy() for v in value])
    return np.asarray(value)


def _shapes(value: Any) -> list[str]:
    """The different shapes of the parts of a list, in their order."""
    try:
        return list(dict.fromkeys(_shape(_cpu(v)) for v in value))
    except (TypeError, ValueError, RuntimeError):
        return []


def _shape(value: Tensor | np.ndarray) -> str:
    return str(list(value.shape))
