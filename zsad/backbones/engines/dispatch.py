"""Decides who runs an encoder's graph, verifies it at first use, and says what it chose."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zsad import config as cfg
from zsad.backbones.block_plan import WINDOW_KINDS
from zsad.backbones.engines import processor
from zsad.backbones.engines.calibration import Calibration, of_backbone
from zsad.backbones.engines.choice import Work, check, choose, fusing_pays, gmac
from zsad.backbones.engines.compiled import Compiled
from zsad.backbones.engines.graph_cache import Entry
from zsad.backbones.engines.interface import Engine, Examples, Facts, Graph
from zsad.backbones.engines.openvino_cpu import OpenVino
from zsad.backbones.engines.packed import OneDnn, PackedLinear, works
from zsad.backbones.engines.quantised import quantised
from zsad.backbones.engines.verification import LOWEST_COSINE, Finding, Stamps, verify
from zsad.errors import CellError, RequestError, counted, reason
from zsad.types import BackboneInfo, EncoderVariant, Tap

if TYPE_CHECKING:
    from zsad.backbones.clip_vit import ImageEncoder

log = logging.getLogger(__name__)

MOST_GRAPHS = 8  # that are kept compiled; each holds the weights once more
Key = tuple[EncoderVariant, int, tuple[Tap, ...]]


@dataclass(frozen=True)
class Served:
    """Who runs a set of taps.  ``graph`` None: torch, as it is; ``found``: of the verification."""

    name: str
    version: str
    graph: Graph | None = None
    found: Finding | None = None


class Engines:
    """The engines of one backbone.  ``asked`` and ``precision``: the settings of these names.

    ``pictures``: how many are known to come, for ``auto``; whoever knows sets it.  ``stamps``:
    which graphs passed before; None: those in the cache folder.  ``compile``: what would be left
    to torch is compiled by it, on any device.  ``cache``: OpenVINO's graphs are kept on disk, as
    int8's always are.  ``examples``: the pictures that int8 is calibrated on.
    Raises :class:`RequestError` for an engine that cannot run what was asked for.
    """

    def __init__(
        self,
        info: BackboneInfo,
        asked: str = "auto",
        precision: str = "fp32",
        device: str = "cpu",
        stamps: Stamps | None = None,
        compile: bool = False,
        cache: bool = False,
        examples: Examples | None = None,
    ) -> None:
        self.info, self.asked, self.precision = info, asked, precision
        self.compile, self.cache = compile, cache or precision == "int8"
        check(asked, precision, self.facts(device))
        if asked == "onednn" and not works():
            raise RequestError(
                "backbone.engine=onednn: this build of torch has no packed linear layers that "
                "work; leave the key out"
            )
        if precision == "int8" and examples is None:
            raise RequestError(
                "backbone.precision=int8: needs pictures to be calibrated on; give "
                "examples=zsad.data.calibration.EXAMPLES"
            )
        self.pictures = 0
        self._examples = examples
        self._calibrations: dict[tuple[str, str], Calibration] = {}
        self.packed = PackedLinear(on=asked == "onednn")
        self._stamps = stamps or Stamps()
        self._served: dict[Key, Served] = {}
        self._exact = False
        self._advised = False

    def facts(self, device: str = "cpu") -> Facts:
        """What the choice depends on, of this machine."""
        return processor.facts(device)

    @property
    def torch_only(self) -> bool:
        """Whether nothing but torch may be used now."""
        return self.asked == "torch" or self._exact

    @contextmanager
    def torch_unless_asked(self) -> Iterator[None]:
        """Within, ``auto`` means torch: what training reads must not depend on the machine."""
        before, self._exact = self._exact, self.asked == "auto"
        try:
            yield
        finally:
            self._exact = before

    def run(
        self, encoder: ImageEncoder, images: Tensor, taps: Iterable[Tap]
    ) -> dict[Tap, Tensor] | None:
        """Return the taps of images [B, 3, S, S]; None: torch is to run them as it is."""
        served = self.served(encoder, images.shape[-2:], taps, images.device.type)
        return served.graph(images) if served.graph else None

    def served(
        self,
        encoder: ImageEncoder,
        size: Sequence[int],
        taps: Iterable[Tap],
        device: str = "cpu",
    ) -> Served:
        """Choose who runs these taps of images of ``size`` (H, W), make the graph and verify it.

        Raises :class:`CellError` where a precision was asked for that the graph does not reach:
        torch in float32 would be another figure.
        """
        plain = Served("torch", str(torch.__version__))
        if size[0] != size[1] and self.rounds:
            raise CellError(
                f"backbone.engine={self.asked} backbone.precision={self.precision}: takes square "
                f"pictures alone, not {size[1]} x {size[0]} pixels; use backbone.precision=fp32"
            )
        if size[0] != size[1] or (self._exact and not self.compile):
            return plain
        key = (encoder.variant, int(size[0]), tuple(sorted(taps)))
        if key not in self._served:
            facts = self.facts(device)
            asked = "torch" if self._exact else self.asked
            work = self._work(encoder, key)
            name = choose(asked, self.precision, facts, work)
            if name == "torch" or (name == "onednn" and not works()):
                if not self.compile:
                    self._advise(facts, work)
                    return plain  # not kept: more pictures may come
                name = "compile"
            while len(self._served) >= MOST_GRAPHS:
                self._served.pop(next(iter(self._served)))
            self._served[key] = self._verified(encoder, key, name, facts, plain)
        return self._served[key]

    @property
    def rounds(self) -> bool:
        """Whether an engine was asked for by name to compute less exactly than float32: nobody
        else may do its work then."""
        return self.precision in LOWEST_COSINE and self.asked not in ("auto", "torch")

    def forget(self) -> None:
        """Drop all graphs, for a backbone that moves to another device."""
        self._served.clear()

    def account(self, variant: EncoderVariant) -> dict[str, Any]:
        """Who ran the encoder under a variant, for records: name, version, processor, and what
        the verification of its graphs found at worst."""
        own = [s for (known, _, _), s in self._served.items() if known == variant]
        kept = own or [Served("torch", str(torch.__version__))]
        found: dict[str, Any] = {
            "name": "+".join(dict.fromkeys(s.name for s in kept)),
            "version": "+".join(dict.fromkeys(s.version for s in kept)),
            "processor": processor.name(),
        }
        if seen := [s.found for s in kept if s.found]:
            found["error"] = float(f"{max(f.error for f in seen):.2g}")
        if used := self._calibrations.get((variant.activation, variant.input)):
            found["calibration"] = used.account
        return found

    # --------------------------------------------------------------------------- internal
    def _work(self, encoder: ImageEncoder, key: Key) -> Work:
        _, size, taps = key
        side = size // encoder.patch
        width = self.info.width
        cost = gmac(taps, encoder.depth, width, (side, side), encoder.patch)
        windows = any(tap.kind in WINDOW_KINDS for tap in taps)
        return Work(cost, encoder.depth, self.pictures, windows, width)

    def _advise(self, facts: Facts, work: Work) -> None:
        """Say once where compiling pays."""
        if self._advised or self._exact or not fusing_pays(self.precision, facts, work):
            return
        self._advised = True
        log.info(
            "the windows of %s would take about a quarter less time with "
            "backbone.compile=true (cells of %s-compile, which rounds otherwise)",
            *(counted(work.pictures, "image"), self.precision),
        )

    def engine(self, name: str, facts: Facts) -> Engine:
        """Return a new engine of this name."""
        if name == "compile":
            return Compiled()
        if name == "openvino":
            return OpenVino(self.precision, facts.openvino)
        return OneDnn(self.packed)

    def _verified(
        self, encoder: ImageEncoder, key: Key, name: str, facts: Facts, plain: Served
    ) -> Served:
        """The graph of an engine if it passes, else torch and one line."""
        _, size, taps = key
        engine = self.engine(name, facts)
        try:
            recorded, calibration = self._recorded(encoder)
            of = self._identity(key, engine) | calibration
            identity = of | {"device": facts.device}
            if self.cache and isinstance(engine, OpenVino):
                engine.kept = Entry(self._stamps.folder / "graphs", of)
            graph = engine.graph(recorded, size, taps)
            found = self._stamps.get(identity)
            if found is None or not found.passes(self.precision):
                found = verify(graph, self._torch(encoder, taps), size, facts.device)
                if found.passes(self.precision):
                    self._stamps.put(identity, found)
        except Exception as error:  # a runtime fails in any way
            return self._refused(name, reason(error), plain)
        if not found.passes(self.precision):
            off = f"is {found.error:.1e} from torch (cosine {found.cosine:.4f})"
            return self._refused(name, f"its graph {off}", plain)
        log.info(
            "the encoder runs on %s %s (%s, %.0e from torch)",
            *(engine.name, engine.version, self.precision, found.error),
        )
        return Served(engine.name, engine.version, graph, found)

    def _recorded(self, encoder: ImageEncoder) -> tuple[ImageEncoder, dict[str, Any]]:
        """The encoder that a graph is made of, and what that adds to the graph's identity."""
        if self.precision != "int8" or self._examples is None:
            return encoder, {}
        kind = (encoder.variant.activation, encoder.variant.input)
        if kind not in self._calibrations:
            folder = self._stamps.folder / "calibrations"
            with self.packed.used(False):
                self._calibrations[kind] = of_backbone(
                    *(encoder, self.info, self._examples, folder, source_digest())
                )
        used = self._calibrations[kind]
        return quantised(encoder, used.inputs), {"calibration": used.account}

    def _torch(self, encoder: ImageEncoder, taps: Sequence[Tap]) -> Graph:
        def run(images: Tensor) -> dict[Tap, Tensor]:
            with self.packed.used(False):
                return encoder.taps_of(images, taps)

        return run

    def _refused(self, name: str, why: str, plain: Served) -> Served:
        if self.precision != "fp32" and name != "compile":
            raise CellError(
                f"backbone.engine={name} backbone.precision={self.precision}: {why}; use "
                f"backbone.precision=fp32"
            )
        log.warning("the encoder runs in torch, not on %s: %s", name, why)
        if name == "onednn":
            self.packed.switch(False)
        return plain

    def _identity(self, key: Key, engine: Engine) -> dict[str, Any]:
        """Everything that a graph depends on, and the machine that it was verified on."""
        variant, size, taps = key
        return {
            "backbone": [self.info.name, self.info.weights_sha256 or self.info.weights_source],
            "activation": self.info.activation,
            "variant": asdict(variant),
            "size": size,
            "taps": [list(tap) for tap in taps],
            "engine": [engine.name, engine.version, torch.__version__],
            "precision": self.precision,
            "threads": torch.get_num_threads(),
            "source": source_digest(),
            "processor": processor.name(),
        }


def source_digest() -> str:
    """Hash of the code that a graph is a recording of."""
    folder = files("zsad.backbones")
    names = ("blocks.py", "clip_vit.py", "block_plan.py", "windows.py")
    own = ("recording", "openvino_cpu", "packed", "compiled", "quantised", "calibration")
    texts = [(folder / n).read_text(encoding="utf-8") for n in names]
    texts += [(folder / "engines" / f"{n}.py").read_text(encoding="utf-8") for n in own]
    return cfg.digest(texts, 16)
