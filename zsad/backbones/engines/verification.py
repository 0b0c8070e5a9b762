"""No engine is taken at its word: three pictures go through its graph and through torch.

Three, one after the other through the same graph: a fault of OpenVINO was seen that shows only
from the second inference on.  The pictures are always the same ones, so that what is found does
not depend on the run.  That a graph passed is kept as a *stamp*, a file of a few bytes named by
everything that the graph depends on, so that it is found out once on a machine; a stamp that
cannot be read counts for nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from zsad import config as cfg
from zsad.backbones.engines.choice import VERIFIED_ON
from zsad.backbones.engines.interface import Graph
from zsad.errors import ZsadError, reason
from zsad.io import read_json, write_json
from zsad.io.caches import cache_folder

log = logging.getLogger(__name__)

WORST_ERROR = 1e-5  # relative, of a tap in float32
LOWEST_COSINE = {
    "bf16": 0.995,
    "fp16": 0.999,
    "tf32": 0.999,
    "int8": 0.99,
}  # of a token with torch's in float32
# Of a tap in int8: 0.02 were seen; with ranges four times too wide, 0.07; with outer values cut off
# at half of them, 0.14.
WORST_INT8 = 0.05


class Finding(NamedTuple):
    """``error``: largest relative error of a tap; ``cosine``: the smallest one of a token."""

    error: float
    cosine: float

    def passes(self, precision: str) -> bool:
        """Whether the graph is as exact as its precision allows."""
        if precision == "int8" and not self.error <= WORST_INT8:
            return False
        if precision in LOWEST_COSINE:
            return self.cosine >= LOWEST_COSINE[precision]
        return self.error <= WORST_ERROR


def default_folder() -> Path:
    """``$ZSAD_CACHE/engines``, else below the user's cache folder."""
    return cache_folder() / "engines"


def pictures(size: int) -> Tensor:
    """The pictures [3, 3, S, S] that graphs are verified on: blurred and sharp noise."""
    generator = torch.Generator().manual_seed(20)
    coarse = torch.randn(VERIFIED_ON, 3, 9, 9, generator=generator)
    fine = torch.randn(VERIFIED_ON, 3, size, size, generator=generator)
    smooth = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    shares = torch.linspace(0.1, 0.8, VERIFIED_ON)[:, None, None, None]
    return (1 - shares) * smooth + shares * fine


@torch.no_grad()
def verify(graph: Graph, torch_graph: Graph, size: int, device: str = "cpu") -> Finding:
    """Compare a graph with torch on every tap of every picture."""
    error, cosine = 0.0, 1.0
    for image in pictures(size).to(device).split(1):
        found, wanted = graph(image), torch_graph(image)
        for tap, right in wanted.items():
            one = compare(found[tap], right)
            error, cosine = max(error, one.error), min(cosine, one.cosine)
    return Finding(error, cosine)


def compare(found: Tensor, right: Tensor) -> Finding:
    """Compare a tap with torch's; not-a-number and another shape are infinitely wrong."""
    if found.shape != right.shape or not bool(torch.isfinite(found).all()):
        return Finding(math.inf, -1.0)
    a, b = found.double(), right.double()
    error = float((a - b).norm() / b.norm().clamp(min=1e-30))
    return Finding(error, float(F.cosine_similarity(a, b, dim=-1).min()))


class Stamps:
    """Which graphs passed on this machine."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()

    def path(self, identity: Mapping[str, Any]) -> Path:
        return self.folder / f"{cfg.digest(dict(identity), 32)}.json"

    def get(self, identity: Mapping[str, Any]) -> Finding | None:
        """What was found of a graph; None where nothing is known for certain."""
        path = self.path(identity)
        if not path.is_file():
            return None
        try:
            kept = read_json(path)
            if kept["of"] != cfg.plain(dict(identity)):
                return None
            return Finding(float(kept["error"]), float(kept["cosine"]))
        except (ZsadError, OSError, KeyError, TypeError, ValueError) as error:
            log.debug("stamp %s counts for nothing: %s", path, reason(error))
            return None

    def put(self, identity: Mapping[str, Any], found: Finding) -> None:
        """Keep what was found; a cache that cannot be written costs time alone."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.path(identity), {**found._asdict(), "of": dict(identity)})
        except (ZsadError, OSError) as error:
            log.debug("no stamp kept: %s", reason(error))
