"""Finds the weight file of a backbone on this machine, and names it by its content.

Nothing here imports torch: a plan must know which weights a run would use.  Order: an explicit
path; the weights bundled with zsad; the caches (``$ZSAD_WEIGHTS``, zsad's cache folder,
open_clip's, the hub's).  A file is found by its name and place; what it is, its content says
(:mod:`zsad.backbones.known_weights`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import platformdirs

from zsad.backbones import families, known_weights
from zsad.backbones.known_weights import Origin
from zsad.backbones.specs import BackboneSpec, spec
from zsad.errors import WeightsError
from zsad.io.digests import remembered_sha256
from zsad.io.names import at_home

BUNDLED_WEIGHTS = "weights.safetensors"
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # on the hub


@dataclass(frozen=True)
class FoundWeights:
    """``path``: None for random weights; ``source``: "bundled", "random", "file:<name>" or
    "hub:<repository>@<commit>"; ``sha256``: names the weights by content; ``origin``: what that
    content is; ``tag``: open_clip's name of the weights that were looked for, "" for a file that
    was given."""

    path: Path | None
    source: str
    sha256: str
    origin: Origin
    tag: str = ""

    def account(self, demo: bool) -> dict[str, Any]:
        """What a :class:`zsad.types.BackboneInfo` says of the weights.  ``demo``: whether they are
        those of the bundled demonstration backbone."""
        return {
            "weights_source": self.source,
            "weights_sha256": self.sha256,
            "weights_grade": self.origin.grade,
            "weights_name": self.origin.name,
            "banner": known_weights.banner(self.origin, demo, self.source, self.sha256),
            "random": self.path is None,
        }


def locate(spec: BackboneSpec, weights: str | os.PathLike[str] | None) -> FoundWeights | None:
    """Return the weights that loading would use, or None if they would have to be fetched.

    Raises :class:`WeightsError` for an explicit path without a file, or where nothing could be
    fetched either.
    """
    if spec.family:
        return families.family(spec.family).locate(spec, weights)
    if weights is not None and os.fspath(weights) == "random":
        digest = random_digest(spec.model_config() or {})
        return FoundWeights(None, "random", digest, Origin("random"))
    if weights is not None:
        path = at_home(weights)
        if not path.is_file():
            raise WeightsError(
                f"backbone.weights={weights}: no such file; give the path of a state dict, an "
                "open_clip .bin/.safetensors or an OpenAI .pt archive"
            )
        return graded(spec, path, spec.pretrained)
    if spec.bundled:
        with as_file(files("zsad.backbones") / spec.bundled / BUNDLED_WEIGHTS) as path:
            if not path.is_file():
                raise WeightsError(
                    f"backbone '{spec.name}': {spec.bundled}/{BUNDLED_WEIGHTS} is missing from "
                    "this installation; reinstall zsad"
                )
            return FoundWeights(path, "bundled", remembered_sha256(path), Origin("bundled"))
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
    return replace(graded(spec, cached, spec.pretrained), tag=spec.pretrained)


def graded(
    spec: BackboneSpec, path: Path, tag: str, repositories: Iterable[str] = ()
) -> FoundWeights:
    """Name a file by its content, and say where that is not what ``spec`` and ``tag`` ask for.

    ``repositories``: where the hub keeps the tag, besides what the table says.
    """
    digest = remembered_sha256(path)
    asked = {spec.hub_repo, *repositories} - {""}
    origin = known_weights.origin(path, digest, spec.open_clip_model, tag, asked)
    source = f"hub:{origin.name}" if origin.grade == "hub" else f"file:{path.name}"
    return FoundWeights(path, source, digest, origin)


def identify(name: str, weights: str | None = None) -> tuple[str, bool]:
    """Return the sha256 of the weights that loading would use ('' if they would have to be
    fetched first) and whether the backbone is the demonstration one, for planning.

    Raises as loading does, for an unknown name or a missing file.
    """
    chosen = spec(name)
    found = locate(chosen, weights)
    return (found.sha256 if found else ""), chosen.demo


def find_cached(names: Iterable[str], hub_repo: str) -> Path | None:
    """Look for a CLIP by its names in the cache folders, then in the hub's cache."""
    return find_named(names, hub_repo, OPEN_CLIP_FILES)


def find_named(names: Iterable[str], hub_repo: str, hub_names: Iterable[str]) -> Path | None:
    """Look for a weight file by its names in the cache folders, then in the hub's cache, where it
    is called one of ``hub_names``."""
    for folder in cache_folders():
        for name in names:
            if (folder / name).is_file():
                return folder / name
    if hub_repo:
        from huggingface_hub import try_to_load_from_cache

        for name in hub_names:
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
