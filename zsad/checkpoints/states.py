"""Trained states on disk: safetensors with a JSON account of where they come from.

One file holds the tensors of :meth:`Method.trained_state` and, in the header, what is needed to
use them honestly: method and resolved config, backbone and the hash of its weights, the taps,
what it was trained on, seed, epochs and version.  Official checkpoints (torch files) are read
with ``weights_only=True`` and translated by the method.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from zsad import config as cfg
from zsad.backbones.tensor_files import (
    check_values,
    is_safetensors,
    naming,
    read_tensors,
    values_digest,
)
from zsad.backbones.wrappers import opened
from zsad.checkpoints.account import CheckpointMeta, SourceFile, TrainedOn, of_header, origin_of
from zsad.checkpoints.choice import single
from zsad.checkpoints.packed_states import packed_state, unpacked_state
from zsad.checkpoints.packing import KEY, packing_of
from zsad.checkpoints.released import content_of, recognise
from zsad.checkpoints.sources import beside
from zsad.config.method_config import OF_TRAINING, MethodConfig
from zsad.errors import CellError, RequestError, WeightsError, counted
from zsad.io import atomic_write_bytes
from zsad.method import AnyMethod, new_method
from zsad.types import BackboneInfo

if TYPE_CHECKING:
    from zsad.registry import MethodEntry

log = logging.getLogger(__name__)

DIGEST = "zsad.sha256"  # in the header: of the values as they lie in the file
LARGEST = 10_000  # of the numbers in a stored config, unless its tensors have larger sides
YIELDS = "yields to the checkpoint's own size"  # how a note on a key of the caller's ends
Layers = Sequence[tuple[str, Mapping[str, Any]]]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint file in memory: ours (with ``meta``) or official (a foreign structure)."""

    kind: Literal["zsad", "official"]
    state: Any
    meta: CheckpointMeta | None = None


# -------------------------------------------------------------------------------- writing
def describe(
    method: AnyMethod,
    *,
    seed: int = 0,
    epochs: int = 0,
    trained_on: TrainedOn | None = None,
    source: Literal["trained", "official"] = "trained",
    identity: str = "",
    facts: Mapping[str, Any] | None = None,
    contents: Sequence[str] = (),
    source_file: SourceFile | None = None,
    revision: int = 1,
    cost: Mapping[str, Any] | None = None,
) -> CheckpointMeta:
    """Return the account of a method as it is configured, on the backbone it was built for."""
    request = method.feature_request()
    return CheckpointMeta(
        method=method.name,
        config=cfg.to_dict(method.config),
        backbone=method.backbone.name,
        backbone_sha256="" if source == "official" else method.backbone.weights_sha256,
        taps=tuple((t.kind, t.layer, t.start) for t in sorted(request.taps)),
        variant=dataclasses.asdict(request.variant),
        seed=seed,
        epochs=epochs,
        source=source,
        trained_on=trained_on,
        identity=identity,
        facts=dict(facts or {}),
        contents=tuple(contents),
        source_file=source_file,
        revision=revision,
        cost=dict(cost or {}),
    )


def save(
    path: Path | str, state: Mapping[str, Tensor], meta: CheckpointMeta, bits: int = 0
) -> Path:
    """Write a checkpoint atomically: the file is whole or absent.

    ``bits``: of each number (:mod:`zsad.checkpoints.packing`), 2..8; 0: as the tensors have them.
    Raises :class:`CellError` if the disk refuses.
    """
    from safetensors.torch import save as to_bytes

    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    header = meta.header()
    if bits:
        tensors, header[KEY] = packed_state(tensors, bits)
    header[DIGEST] = values_digest(tensors)
    try:
        return atomic_write_bytes(path, to_bytes(tensors, header))
    except OSError as error:
        why = error.strerror or error
        raise CellError(f"checkpoint {path}: cannot be written ({why}); check the disk") from error


# -------------------------------------------------------------------------------- reading
def load_any(path: Path | str, companions: Sequence[str] = ()) -> LoadedCheckpoint:
    """Read a checkpoint of ours or an official one; ``kind`` says which it is.

    ``companions``: names of files that are read along with an official one, where they lie beside
    it; what they hold joins its dictionary.

    Raises :class:`WeightsError` for a file that is missing, damaged, or holds anything but
    dense tensors and plain containers: nothing in it is ever executed.
    """
    path = Path(path)
    with _of_checkpoint(path):
        state = read_tensors(path, "damaged, or not a checkpoint")
    header = _header(path)
    meta = of_header(path, header)
    if meta is None:
        for other in beside(path, companions if isinstance(state, dict) else ()):
            with _of_checkpoint(other):
                more = read_tensors(other, "damaged, or not a checkpoint")
            state = {**more, **state} if isinstance(more, dict) else state
        return LoadedCheckpoint("official", state)
    if header.get(DIGEST) not in (None, values_digest(state)):  # None: of an earlier version
        raise WeightsError(
            f"checkpoint {path}: damaged (its values do not match their digest); get the file "
            f"again, or train again"
        )
    state = unpacked_state(path, state, packing_of(path, header))
    check_values(f"checkpoint {path}", state)
    return LoadedCheckpoint("zsad", state, meta)


@contextlib.contextmanager
def _of_checkpoint(path: Path) -> Iterator[None]:
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"checkpoint {error}") from None


def _header(path: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file; none of another file."""
    if not is_safetensors(path):
        return {}
    from safetensors import safe_open

    with naming(path, "its header cannot be read"), safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


# ------------------------------------------------------------------------------ into methods
def load_into(
    entry: MethodEntry, path: Path | str, info: BackboneInfo, layers: Layers = ()
) -> tuple[AnyMethod, list[str]]:
    """Build the method of ``entry`` with the state in ``path``; return it and notes.

    ``layers`` are config layers of the caller.  They win over what the checkpoint stores, but
    not over the sizes that its tensors imply.  An official checkpoint means the preset
    ``released`` unless a layer names another.
    Raises :class:`WeightsError` if the file belongs to another method or another backbone, or
    does not fit.
    """
    path = Path(path)
    found = load_any(path, entry.companions)
    if found.meta is None:
        method, notes = _load_imported(entry, path, found.state, info, layers)
        method.trained_from = origin_of(path).record()
        return method, _warned(path, notes)
    meta = found.meta
    if meta.method != entry.name:
        raise WeightsError(
            f"checkpoint {path} is of method '{meta.method}', not '{entry.name}'; give its own file"
        )
    check_backbone(path, meta, info)
    with naming(path, f"'{entry.name}' cannot be built of it"):
        _check_sizes(meta.config, found.state)
        config, notes = _stored_config(entry, path, found, info, layers)
        method = _filled(entry, config, info, found.state, path)
    method.facts = dict(meta.facts)
    method.trained_from = origin_of(path).record()
    return method, _warned(path, notes)


def _warned(path: Path, notes: list[str]) -> list[str]:
    """The notes, of which those on keys that were set in vain are said at once, too."""
    for note in (n for n in notes if n.endswith(YIELDS)):
        log.warning("%s (%s), which was set in vain; leave it out", note, path.name)
    return notes


def check_backbone(path: Path | str, meta: CheckpointMeta, info: BackboneInfo) -> None:
    """Refuse a checkpoint of another backbone.  Raises :class:`WeightsError`."""
    if meta.backbone_sha256 and meta.backbone_sha256 != info.weights_sha256:
        raise WeightsError(
            f"checkpoint {path} was trained on backbone '{meta.backbone}' "
            f"(weights {meta.backbone_sha256[:12]}), not on '{info.name}' "
            f"({info.weights_sha256[:12] or 'unknown'}); choose that backbone or train again"
        )


def read_meta(path: Path | str) -> CheckpointMeta | None:
    """Return the account of a checkpoint of ours, None for an official one."""
    return load_any(path).meta


def import_file(
    entry: MethodEntry,
    source: Path | str,
    target: Path | str,
    info: BackboneInfo,
    layers: Layers = (),
    trained_on: str = "",
) -> list[str]:
    """Convert an official checkpoint to ours (``zsad weights import``); return the report.

    What it was trained on is told by the table of released files, or by the user with
    ``trained_on``, the name of a dataset; the new file says so, and by whom it is said.
    Raises :class:`WeightsError` for missing keys, a file that is ours or another method's, and
    :class:`RequestError` where user and table say two things.
    """
    source = single(source, entry.name, str(source), companions=entry.companions).path
    found = load_any(source, entry.companions)
    if found.meta is not None:
        raise WeightsError(f"checkpoint {source} is in zsad's own format already; use it as it is")
    data, origin, said = _imported_from(entry, Path(source), trained_on)
    method, notes = _load_imported(entry, Path(source), found.state, info, layers)
    state = method.trained_state()
    meta = describe(method, source="official", trained_on=data, source_file=origin)
    save(target, state, meta)
    count = sum(v.numel() for v in state.values())
    return [
        *said,
        *notes,
        f"wrote {counted(len(state), 'tensor')} ({counted(count, 'value')}) to {target}",
    ]


def _imported_from(
    entry: MethodEntry, path: Path, trained_on: str
) -> tuple[TrainedOn | None, SourceFile, list[str]]:
    """What a foreign file was trained on, which file it is, and what has to be said of both."""
    content, row = content_of(path), recognise(path)
    if row is None:
        if not trained_on:
            unknown = (
                "what it was trained on is not known, so no target is refused: say it with "
                "--trained-on DATASET"
            )
            return None, SourceFile(path.name, content.sha256, content.git_blob), [unknown]
        origin = SourceFile(path.name, content.sha256, content.git_blob, "user")
        return TrainedOn(trained_on, "", ""), origin, [f"trained on {trained_on}, as you say"]
    if row.method != entry.name:
        raise WeightsError(
            f"checkpoint {path} is {row.name} ({row.title}), not a checkpoint of {entry.name}"
        )
    data = TrainedOn(" + ".join(row.trained_on), "", row.part)
    if trained_on and trained_on != data.dataset:
        raise RequestError(
            f"--trained-on {trained_on}: {path.name} is {row.name}, which was trained on "
            f"{data.dataset}; leave the option out"
        )
    said = [
        f"recognised as {row.name}: trained on {data.dataset} ({row.part or 'unknown'} part), "
        f"serves {row.serves_words}"
    ]
    if row.eval_options:
        said.append(f"its scripts evaluate it with: {row.eval_options}")
    if row.trap:
        said.append(f"note: {row.trap}")
    origin = SourceFile(path.name, content.sha256, content.git_blob, "table")
    return data, origin, said


def _load_imported(
    entry: MethodEntry, path: Path, state: Any, info: BackboneInfo, layers: Layers
) -> tuple[AnyMethod, list[str]]:
    state, wrapping = opened(state)
    try:
        with naming(path, f"not an official checkpoint of '{entry.name}'"):
            imported = entry.load().import_official(state, entry.resolve(*layers), info)
    except TypeError as error:
        raise WeightsError(f"checkpoint {path}: {error}; give a file that zsad wrote") from None
    check_values(path, imported.state)
    implied = dict(imported.config)
    if any("preset" in values for _, values in layers):
        implied.pop("preset", None)
    config = entry.resolve(*layers, (str(path), implied))
    with naming(path, f"'{entry.name}' cannot be built of it"):
        method = _filled(entry, config, info, imported.state, path)
    notes = [f"official {entry.title} checkpoint, preset {config.preset}"]
    sizes = cfg.flat(implied)
    for origin, values in layers:
        asked = cfg.flat(dict(values))
        notes += [
            f"{entry.name}.{key} ({origin}) {YIELDS}"
            for key, value in asked.items()
            if key != "preset" and key in sizes and sizes[key] != value
        ]
    notes += [*wrapping, *imported.report]
    return method, notes


def _stored_config(
    entry: MethodEntry, path: Path, found: LoadedCheckpoint, info: BackboneInfo, layers: Layers
) -> tuple[MethodConfig, list[str]]:
    """Return the stored config with the caller's layers on it, except where they do not fit."""
    assert found.meta is not None
    held = dict(found.meta.config)
    gone = found.meta.preset not in ("default", *entry.presets)
    notes = []
    if gone:  # the stored values say all that it said
        held["preset"] = "default"
        notes.append(f"its preset '{found.meta.preset}' is no longer there; its values are kept")
    elif found.meta.source == "official":
        notes += _imported_otherwise(entry, held, found.meta.preset)
    stored = (str(path), held)
    explicit: list[tuple[str, Mapping[str, Any]]] = []
    for origin, values in layers:
        if "preset" in values:  # the stored config holds every key and would hide the preset
            preset = entry.presets.get(str(values["preset"]), {})
            # How the state was trained is what it says itself, whatever the preset would have done.
            explicit.append((origin, {k: v for k, v in preset.items() if k not in OF_TRAINING}))
        explicit.append((origin, values))
    config = entry.resolve(stored, *explicit)
    if not explicit or _fits(entry, config, info, found.state):
        return config, notes
    kept: list[tuple[str, Mapping[str, Any]]] = []
    for origin, values in explicit:
        for leaf, one in _leaves(values):
            try:
                alone = entry.resolve(stored, (origin, one))
                fits = _fits(entry, alone, info, found.state)
            except RequestError:
                fits = False
            if fits:
                kept.append((origin, one))
            else:
                notes.append(f"{entry.name}.{leaf} ({origin}) {YIELDS}")
    return entry.resolve(stored, *kept), notes


def _imported_otherwise(entry: MethodEntry, held: Mapping[str, Any], preset: str) -> list[str]:
    """What an imported file holds that its preset, by what it sets today, says otherwise: an
    earlier version may have read the authors' code in another way."""
    asked = cfg.flat(entry.presets.get(preset, {}))
    now = cfg.flat(cfg.to_dict(entry.resolve(("preset", {"preset": preset}))))
    plain = cfg.flat(cfg.to_dict(entry.resolve())) | cfg.flat(held)
    said = [
        f"{entry.name}.{key}={plain[key]}, where the preset says {now[key]}"
        for key in asked
        if not key.startswith("train.") and key in plain and plain[key] != now.get(key)
    ]
    again = f"as the preset '{preset}' is today, import it again"
    return [f"it was imported with {'; '.join(said)}; to read it {again}"] if said else []


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (dotted key, nested mapping of that key alone) for every leaf."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            for leaf, inner in _leaves(value, f"{prefix}{key}."):
                yield leaf, {key: inner}
        else:
            yield f"{prefix}{key}", {key: value}


def _check_sizes(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Raise :class:`WeightsError` for whole numbers of a stored config that no tensor of it has
    for a side: before they are seen to fit, a method would be built by them."""
    largest = max([LARGEST, *(side for value in state.values() for side in value.shape)])
    for leaf, _ in _leaves(config):
        value: Any = config
        for key in leaf.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, int) and abs(value) > largest:
            raise WeightsError(f"its config says {leaf}={value:.3g}; train again")


def _shapes(entry: MethodEntry, config: MethodConfig, info: BackboneInfo) -> Shapes:
    """The names and shapes of a method's state; nothing of their size is made to find out."""
    try:
        with torch.device("meta"):
            outline = new_method(entry, config, info)
    except RuntimeError:  # it looks at values while it is built
        outline = new_method(entry, config, info)
    return {key: tuple(value.shape) for key, value in outline.state_dict().items()}


def _fits(
    entry: MethodEntry, config: MethodConfig, info: BackboneInfo, state: Mapping[str, Tensor]
) -> bool:
    return _shapes(entry, config, info) == {k: tuple(v.shape) for k, v in state.items()}


def _filled(
    entry: MethodEntry,
    config: MethodConfig,
    info: BackboneInfo,
    state: Mapping[str, Tensor],
    path: Path,
) -> AnyMethod:
    """The method with the state of a file.  Raises :class:`WeightsError` if that does not fit."""
    own = _shapes(entry, config, info)
    missing = sorted(set(own) - set(state))
    unexpected = sorted(set(state) - set(own))
    if missing or unexpected:
        raise WeightsError(
            f"checkpoint {path} does not fit method '{entry.name}'; "
            f"missing: {', '.join(missing) or 'none'}; "
            f"unexpected: {', '.join(unexpected) or 'none'}"
        )
    for key, value in state.items():
        if own[key] != tuple(value.shape):
            raise WeightsError(
                f"checkpoint {path}: '{key}' is {tuple(value.shape)}, method '{entry.name}' on "
                f"backbone '{info.name}' needs {own[key]}; "
                "use the backbone and config that it was trained with"
            )
    method = new_method(entry, config, info)
    method.load_state_dict(dict(state))
    return method
