"""Engine ``openvino``: the whole encoder for fixed taps as one OpenVINO graph.

OpenVINO's Python tools report every import to a server unless they are kept from it: they are
(:func:`runtime`), so no socket is opened.  Batches are taken image by image: a static batch of
one is the fastest on few cores.
"""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from zsad.backbones.engines.graph_cache import Entry
from zsad.backbones.engines.recording import record
from zsad.errors import ZsadError, counted
from zsad.types import Tap

if TYPE_CHECKING:
    from zsad.backbones.clip_vit import ImageEncoder

# precision -> INFERENCE_PRECISION_HINT; int8 stands in the graph, and the rest of it is float32
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
READ_BACK = {"f32": "float32", "bf16": "bfloat16"}


def runtime() -> ModuleType:
    """Import OpenVINO without the part of it that reports its use."""
    if "openvino_telemetry" not in sys.modules:
        # Its tools fall back on a stub where this package cannot be imported.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    return importlib.import_module("openvino")


def options(precision: str, threads: int) -> dict[str, Any]:
    """What every graph is compiled with.  Neither precision nor threads are left to OpenVINO: on
    processors with bfloat16 it takes that by default, and it takes every core."""
    return {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # several processes would be pinned to the same cores
    }


def compiled(model: Any, precision: str, threads: int) -> Any:
    """Compile a model for the CPU and make sure that it runs as it was told to.

    Raises :class:`ZsadError` where precision or threads are other than asked for.
    """
    wanted = options(precision, threads)
    found = runtime().Core().compile_model(model, "CPU", wanted)
    hint = found.get_property("INFERENCE_PRECISION_HINT").to_string()
    if READ_BACK.get(wanted["INFERENCE_PRECISION_HINT"]) not in (hint, _long(hint)):
        raise ZsadError(f"OpenVINO computes in {hint}, asked for {precision}")
    if (used := found.get_property("INFERENCE_NUM_THREADS")) != threads:
        raise ZsadError(f"OpenVINO uses {counted(used, 'thread')}, asked for {threads}")
    return found


def _long(hint: str) -> str:
    return READ_BACK.get(hint, hint)


def convert(program: torch.export.ExportedProgram) -> Any:
    """Turn a recorded encoder into an OpenVINO model."""
    runtime()
    with quiet():
        frontend = importlib.import_module("openvino.frontend")
        decoder = importlib.import_module("openvino.frontend.pytorch.fx_decoder")
        front = frontend.FrontEndManager().load_by_framework("pytorch")
        read = decoder.TorchFXPythonDecoder.from_exported_program(program)
        return front.convert(front.load(read))


def save(model: Any, path: Path) -> None:
    """Write a model as ``path`` and a ``.bin`` beside it, in the precision of its weights."""
    runtime().save_model(model, str(path), compress_to_fp16=False)


def read(description: bytes, weights: bytes) -> Any:
    """Read what :func:`save` wrote; the model may use the memory of ``weights``."""
    ov = runtime()
    return ov.Core().read_model(description, ov.Tensor(np.frombuffer(weights, dtype=np.uint8)))


@contextmanager
def quiet() -> Iterator[None]:
    """Let no warning through.  Converters warn of operators that this torch does not have and
    nobody uses, and tell every step."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class OpenVino:
    """Compiles encoders at one precision.  ``threads``: as many as torch may use.  ``kept``: where
    the next graph may lie on disk; None: nowhere."""

    name = "openvino"

    def __init__(self, precision: str, version: str) -> None:
        self.precision, self.version = precision, version
        self.kept: Entry | None = None

    def graph(self, encoder: ImageEncoder, size: int, taps: Sequence[Tap]) -> OpenVinoGraph:
        known = self.kept.read() if self.kept else None
        if known is not None and known.keys() == {"graph.xml", "graph.bin"}:
            return self._compiled(read(known["graph.xml"], known["graph.bin"]), taps, known)
        program = record(encoder, size, taps)
        model = convert(program)
        if self.kept is not None:
            self.kept.write(lambda folder: save(model, folder / "graph.xml"))
        return self._compiled(model, taps, program)

    def _compiled(self, model: Any, taps: Sequence[Tap], memory: Any) -> OpenVinoGraph:
        made = compiled(model, self.precision, torch.get_num_threads())
        return OpenVinoGraph(made, taps, memory)


class OpenVinoGraph:
    """One compiled graph and the request that runs it."""

    def __init__(self, model: Any, taps: Sequence[Tap], memory: Any) -> None:
        self.taps = tuple(taps)
        self._request = model.create_infer_request()
        self._memory = memory  # its weights may be the model's own

    def __call__(self, images: Tensor) -> dict[Tap, Tensor]:
        rows = [self._one(image[None].float().contiguous().numpy()) for image in images]
        return {tap: torch.from_numpy(np.concatenate([r[tap] for r in rows])) for tap in self.taps}

    def _one(self, image: np.ndarray[Any, Any]) -> Mapping[Tap, np.ndarray[Any, Any]]:
        self._request.infer({0: image})
        return {  # copied: the request writes the next image's into the same memory
            tap: np.array(self._request.get_output_tensor(i).data)
            for i, tap in enumerate(self.taps)
        }
