"""Finds the weight file of a backbone on this machine, and names it by its content.

Nothing here imports torch: a plan must know which weights a run would use.  Order: an explicit
path; the weights bundled with zsad; the caches (``$ZSAD_WEIGHTS``, zsad's cache folder,
open_clip's, the hub's).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import platformdirs

from zsad.backbones.specs import BackboneSpec, spec
from zsad.errors import WeightsError
from zsad.io import sha256_file
from zsad.io.names import at_home

BUNDLED_WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class FoundWeights:
    """``path``: None for random weights; ``source``: "bundled", "random", "file:<name>" or
    "hub:<tag>"; ``sha256``: names the weights by content."""

    path: Path | None
    source: str
    sha256: str


def locate(spec: BackboneSpec, weights: str | os.PathLike[str] | None) -> FoundWeights | None:
    """Return the weights that loading would use, or None if they would have to be fetched.

    Raises :class:`WeightsError` for an explicit path without a file, or where nothing could be
    fetched either.
    """
    if weights is not None and os.fspath(weights) == "random":
        return FoundWeights(None, "random", random_digest(spec.model_config() or {}))
    if weights is not None:
        path = at_home(weights)
        if not path.is_file():
            raise WeightsError(
                f"backbone.weights={weights}: no such file; give the path of a state dict, an "
                "open_clip .bin/.safetensors or an OpenAI .pt archive"
            )
        return FoundWeights(path, f"file:{path.name}", weights_digest(path))
    if spec.bundled:
        with as_file(files("zsad.backbones") / spec.bundled / BUNDLED_WEIGHTS) as path:
            if not path.is_file():
                raise WeightsError(
                    f"backbone '{spec.name}': {spec.bundled}/{BUNDLED_WEIGHTS} is missing from "
                    "this installation; reinstall zsad"
                )
            return FoundWeights(path, "bundled", weights_digest(path))
    if not spec.open_clip_model:
        raise WeightsError(
            f"backbone '{spec.name}' has no weights of its own; give backbone.weights=FILE, a CLIP "
            "state dict in OpenAI's naming"
        )
    if not spec.weights_file:
        return None
    cached = find_cached([spec.weights_file], spec.hub_repo)
    if cached is None:
        return None
    return FoundWeights(cached, f"hub:{spec.pretrained}", weights_digest(cached))


def identify(name: str, weights: str | None = None) -> tuple[str, bool]:
    """Return the sha256 of the weights that loading would use ('' if they would have to be
    fetched first) and whether the backbone is the demonstration one, for planning.

    Raises as loading does, for an unknown name or a missing file.
    """
    chosen = spec(name)
    found = locate(chosen, weights)
    return (found.sha256 if found else ""), chosen.demo


def find_cached(names: Iterable[str], hub_repo: str) -> Path | None:
    """Look for a weight file by its names in the cache folders, then in the hub's cache."""
    for folder in cache_folders():
        for name in names:
            if (folder / name).is_file():
                return folder / name
    if hub_repo:
        from huggingface_hub import try_to_load_from_cache

        for name in ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"):
            hit = try_to_load_from_cache(hub_repo, name)
            if isinstance(hit, str):
                return Path(hit)
    return None


def cache_folders() -> list[Path]:
    """Folders in which a weight file is looked for, first wins."""
    own = os.environ.get("ZSAD_WEIGHTS")
    folders = [at_home(own)] if own else []
    return [*folders, default_folder(), at_home("~/.cache/clip")]


def default_folder() -> Path:
    """The folder for weight files in the user's cache."""
    return Path(platformdirs.user_cache_dir("zsad")) / "weights"


def random_digest(config: dict[str, Any]) -> str:
    """Name the random weights of an architecture: they follow from it and a fixed seed."""
    return hashlib.sha256(f"random/0/{json.dumps(config, sort_keys=True)}".encode()).hexdigest()


def weights_digest(path: Path) -> str:
    """Return the SHA-256 of a weight file; remembered while its size and time do not change."""
    stat = path.stat()
    return _remembered(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


@cache
def _remembered(path: str, size: int, mtime: int) -> str:
    return sha256_file(path)
