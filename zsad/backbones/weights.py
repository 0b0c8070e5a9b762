"""Fetches and reads backbone weights.  No code from a weight file is ever run.

Where a file is looked for first: :mod:`zsad.backbones.locate`.

How its tensors are read: :mod:`zsad.backbones.tensor_files`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from zsad.backbones.locate import (
    FoundWeights,
    cache_folders,
    default_folder,
    find_cached,
    graded,
    locate,
)
from zsad.backbones.reachable import is_offline, unreachable
from zsad.backbones.specs import BackboneSpec
from zsad.backbones.tensor_files import State, check_values, read_tensors
from zsad.backbones.wrappers import PREFIX, WRAPPERS
from zsad.errors import WeightsError, gist

# what some training scripts put before every name
_PREFIXES = (PREFIX, "clip_model.", "model.", "clip.")
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")


# ---------------------------------------------------------------------------- resolution
def resolve(
    spec: BackboneSpec, weights: str | os.PathLike[str] | None, *, offline: bool
) -> FoundWeights:
    """Find the weights of a backbone: explicit path, bundled, caches, hub.

    Raises :class:`WeightsError` that says which file is missing and where to put it.
    """
    found = locate(spec, weights)
    if found is None:
        tag = pretrained_tag(spec)
        url, repo = _addresses(spec, tag)
        names = [n for n in (spec.weights_file, Path(url).name) if n]
        path = find_cached(names, repo) or _from_hub(spec, tag, offline)
        return replace(graded(spec, path, tag, [repo]), tag=tag)
    if found.path is not None and found.origin.grade == "hub" and spec.pretrained:
        _, repo = _addresses(spec, spec.pretrained)  # what open_clip says of other models
        return replace(graded(spec, found.path, spec.pretrained, [repo]), tag=found.tag)
    return found


def pretrained_tag(spec: BackboneSpec) -> str:
    """Return the weight tag: the spec's, else open_clip's "openai" tag, else its first one."""
    from zsad.torchvision_compat import open_clip

    tags = open_clip.list_pretrained_tags_by_model(spec.open_clip_model)
    if spec.pretrained in tags:
        return spec.pretrained
    if spec.pretrained or not tags:
        raise WeightsError(
            f"backbone '{spec.name}': open_clip has no weights '{spec.pretrained}' for "
            f"{spec.open_clip_model}; known: {', '.join(tags) or 'none'}"
        )
    return "openai" if "openai" in tags else str(tags[0])


def _from_hub(spec: BackboneSpec, tag: str, offline: bool) -> Path:
    from zsad.torchvision_compat import open_clip

    url, repo = _addresses(spec, tag)
    name = spec.weights_file or Path(url).name or f"{repo}/open_clip_model.safetensors"
    reason = "offline mode"
    if not is_offline(offline):
        reason = unreachable("huggingface.co" if repo else url.split("/")[2], hub=bool(repo))
        if not reason:
            try:
                return Path(
                    open_clip.download_pretrained(
                        open_clip.get_pretrained_cfg(spec.open_clip_model, tag)
                    )
                )
            except Exception as error:  # the hub client raises many types
                reason = gist(error)
    folder = os.environ.get("ZSAD_WEIGHTS") or default_folder()
    raise WeightsError(
        f"backbone '{spec.name}': weight file {Path(name).name} is missing and cannot be fetched "
        f"({reason}); put it into {folder} or give backbone.weights=FILE; "
        "`--backbone zsad-tiny` runs without any"
    )


def _addresses(spec: BackboneSpec, tag: str) -> tuple[str, str]:
    """Return the download address and the hub repository of a tag, '' where there is none."""
    from zsad.torchvision_compat import open_clip

    entry = open_clip.get_pretrained_cfg(spec.open_clip_model, tag)
    return str(entry.get("url", "")), str(entry.get("hf_hub", "")).rstrip("/")


# ------------------------------------------------------------------------------- reading
def read_state(path: Path | str) -> State:
    """Read the CLIP state dict of a weight file, names as OpenAI's and open_clip's CLIP class
    have them, values in float32.

    Raises :class:`WeightsError` for a file that is broken, holds code, or is not a CLIP.
    """
    path = Path(path)
    loaded = read_tensors(path)
    for wrapper in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping):
        raise WeightsError(f"{path}: holds a {type(loaded).__name__}, not a state dict")
    state = _canonical({str(k): v for k, v in loaded.items() if isinstance(v, Tensor)})
    missing = [k for k in ("visual.conv1.weight", "token_embedding.weight") if k not in state]
    if missing:
        raise WeightsError(
            f"{path}: not the state dict of a CLIP vision transformer in OpenAI's naming "
            f"({missing[0]} is missing); give another file"
        )
    check_values(path, state)
    return {k: v.float() for k, v in state.items()}


def _canonical(state: State) -> State:
    """Strip wrapper prefixes and non-weights; move a ``text.`` tower to the top."""
    changed = True
    while changed and "visual.conv1.weight" not in state:
        changed = False
        for prefix in _PREFIXES:
            if f"{prefix}visual.conv1.weight" in state or (
                state and all(k.startswith(prefix) for k in state)
            ):
                state = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
                changed = True
    state = {k.removeprefix("text."): v for k, v in state.items()}
    return {k: v for k, v in state.items() if k not in _NOT_WEIGHTS}


__all__ = ["State", "cache_folders", "pretrained_tag", "read_state", "resolve"]
