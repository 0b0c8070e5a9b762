"""Runs methods and writes the score and the map of every image for other programs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad.errors import RequestError
from zsad.exchange.maps import MapWriter, pack
from zsad.io import not_writable, require_writable
from zsad.io.names import safe_name
from zsad.runner.launch import bench
from zsad.runner.options import BenchOptions
from zsad.runner.request import Request, request_of

if TYPE_CHECKING:
    from zsad.runner.heads import Head
    from zsad.types import Sample, Scored

PACKED = ".packed.npz"


def run(target: str | Path, options: BenchOptions) -> dict[str, Any]:
    """Score every image anew and write ``target``; return the document of ``zsad bench`` with
    ``exported`` besides: the number of images by folder.

    ``target``: a folder of maps as :mod:`zsad.exchange.maps` reads it, with a folder per method
    where there are several, and one per dataset below where there are several; or, for one method
    on one dataset, an ``.npz``.  The cells are stored as by ``zsad bench``.  Raises
    :class:`RequestError` for a target that is there already or cannot be written.
    """
    out = Path(target)
    options = replace(options, fresh=True)
    request = request_of(
        options, options.methods, options.datasets
    )  # refused before anything is computed
    _check(out, request, options)
    parent = out.absolute().parent
    require_writable(parent, f"--maps {out}")
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=parent) as made:
        writers = _Writers(Path(made), request)
        document = bench(options, also=writers)
        counts = writers.close()
        try:
            _move(Path(made), out, writers)
        except OSError as error:
            raise not_writable(f"--maps {out}", error) from error
    return {**document, "exported": {"maps": str(out), "images": counts}}


class _Writers:
    """One :class:`MapWriter` per column and dataset, made when its first image comes."""

    def __init__(self, root: Path, request: Request) -> None:
        self.root, self._request = root, request
        self.of: dict[tuple[str, str], MapWriter] = {}
        self.samples: dict[tuple[str, str], list[Sample]] = {}

    def __call__(
        self, dataset: str, head: Head, samples: Sequence[Sample], scored: Scored[Any]
    ) -> None:
        """Write a batch.  What the disk refuses ends the head's cell, with the reason."""
        at = head.label, dataset
        if at not in self.of:
            self.of[at] = MapWriter(self.root / self._folder(*at))
        self.samples.setdefault(at, []).extend(samples)
        maps = scored.maps.final.float().cpu().numpy()
        for sample, score, plane in zip(samples, scored.image_scores.tolist(), maps):
            self.of[at].add(sample.uid, score, plane)

    def _folder(self, label: str, dataset: str) -> Path:
        several = len(self._request.columns) > 1, len(self._request.datasets) > 1
        names = [safe_name(name) for name, given in zip((label, dataset), several) if given]
        return Path(*names)

    def close(self) -> dict[str, int]:
        """Write the scores; return the number of images by folder ("." for the only one)."""
        return {self._folder(*at).as_posix(): writer.close() for at, writer in self.of.items()}


def _check(out: Path, request: Request, options: BenchOptions) -> None:
    """Raise :class:`RequestError` for what cannot be exported."""
    if options.launcher == "ray":
        raise RequestError("--launcher ray: an export runs in one process; leave it out")
    if options.dry_run:
        raise RequestError("--dry-run: `zsad bench --dry-run` shows the plan; leave it out")
    if len(request.seeds) > 1:
        raise RequestError("--seeds: an export is of one seed; give one")
    single = len(request.columns) == 1 and len(request.datasets) == 1
    if out.suffix.lower() == ".npz" and not single:
        raise RequestError(
            f"--maps {out}: an .npz is of one method on one dataset; give a folder for several"
        )
    if out.is_dir() and any(out.iterdir()):
        raise RequestError(f"--maps {out}: the folder is not empty; give another one")
    if out.exists() and not out.is_dir():
        raise RequestError(f"--maps {out}: the file is there already; give another name")


def _move(made: Path, out: Path, writers: _Writers) -> None:
    """Put what was made in its place."""
    if out.suffix.lower() == ".npz":
        for samples in writers.samples.values():  # there is one method and one dataset
            pack(made, made / PACKED, samples)
            os.replace(made / PACKED, out)
        return
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(made.iterdir()):
        shutil.move(str(path), out / path.name)
