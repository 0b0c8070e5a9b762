"""The graph of a package in ONNX Runtime or OpenVINO.  Neither reports its use to anybody."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zsad.errors import RequestError, reason

RUNTIMES = {"onnx": ("onnxruntime", "openvino"), "openvino": ("openvino",)}  # by format
Array = NDArray[np.float32]


class Session(Protocol):
    """``runtime``: its name and version."""

    runtime: str

    def __call__(self, image: Array) -> tuple[Array, Array]:
        """Image [1, 3, S, S] -> (score [1], map [1, S, S])."""
        ...


def open_graph(
    name: str, kind: str, parts: Mapping[str, bytes], runtime: str | None, threads: int
) -> Session:
    """Load a graph of format ``kind`` (``onnx``, ``openvino``) into a runtime: the named one, or
    the first of those that read the format and are installed.  ``threads`` 0: all cores.

    Raises :class:`RequestError` (with ``name``, the package) where there is none, and for a graph
    that it does not take.
    """
    able = RUNTIMES[kind]
    if runtime is not None and runtime not in able:
        raise RequestError(f"--runtime {runtime}: {name} is for {' or '.join(able)}")
    tried = [runtime] if runtime else list(able)
    chosen = next((r for r in tried if _installed(r)), None)
    if chosen is None:
        raise RequestError(
            f"{name}: needs {' or '.join(tried)}, which is not installed; `pip install {tried[0]}`"
        )
    make = OnnxSession if chosen == "onnxruntime" else OpenVinoSession
    try:
        return make(parts, threads)
    except Exception as error:  # runtimes raise types of their own
        raise RequestError(f"{name}: {chosen} does not take its graph ({reason(error)})") from None


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # hidden by whoever put None in its place
        return False


class OnnxSession:
    """ONNX Runtime on the CPU."""

    def __init__(self, parts: Mapping[str, bytes], threads: int) -> None:
        ort: Any = importlib.import_module("onnxruntime")
        ort.disable_telemetry_events()
        options = ort.SessionOptions()
        options.log_severity_level = 3  # errors alone
        if threads:
            options.intra_op_num_threads = options.inter_op_num_threads = threads
        providers = ["CPUExecutionProvider"]
        self._session = ort.InferenceSession(parts["model.onnx"], options, providers=providers)
        self.runtime = f"onnxruntime {ort.__version__}"

    def __call__(self, image: Array) -> tuple[Array, Array]:
        score, values = self._session.run(["score", "map"], {"image": image})
        return score, values


class OpenVinoSession:
    """OpenVINO on the CPU, in float32: its own default is bfloat16 where the processor has it."""

    def __init__(self, parts: Mapping[str, bytes], threads: int) -> None:
        if "openvino_telemetry" not in sys.modules:
            sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
        ov: Any = importlib.import_module("openvino")
        core = ov.Core()
        if "model.xml" in parts:
            weights = np.frombuffer(parts["model.bin"], dtype=np.uint8)
            model = core.read_model(parts["model.xml"], ov.Tensor(weights))
        else:
            model = core.read_model(parts["model.onnx"])
        wanted = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            wanted["INFERENCE_NUM_THREADS"] = str(threads)
        self._parts = parts  # the weights may be read from there
        self._request = core.compile_model(model, "CPU", wanted).create_infer_request()
        self.runtime = f"openvino {ov.__version__.split('-')[0]}"

    def __call__(self, image: Array) -> tuple[Array, Array]:
        self._request.infer({0: image})
        score, values = (np.array(self._request.get_output_tensor(i).data) for i in (0, 1))
        return score, values
