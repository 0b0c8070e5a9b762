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
from zsad.runtime import limits
from zsad.runtime.onnx_file import GraphError

RUNTIMES = {"onnx": ("onnxruntime", "openvino"), "openvino": ("openvino",)}  # by format
OUTPUTS = ("score", "map")
Array = NDArray[np.float32]


class Session(Protocol):
    """``runtime``: its name and version."""

    runtime: str

    def __call__(self, given: Mapping[str, Array]) -> tuple[Array, Array]:
        """``image`` [1, 3, S, S], and what else the graph takes -> (score [1], map [1, S, S])."""
        ...


def takes(size: int, boxes: bool) -> dict[str, tuple[int, ...]]:
    """The inputs of a package's graph by name: an image of ``size`` pixels and, of a method of
    ``boxes``, the weights of the cells of a 3x3 grid and the share of each pixel that the boxes
    cover (:mod:`zsad.runtime.boxes`)."""
    found: dict[str, tuple[int, ...]] = {"image": (1, 3, size, size)}
    return found | ({"cells": (1, 9), "covered": (1, size, size)} if boxes else {})


def open_graph(
    name: str,
    kind: str,
    parts: Mapping[str, bytes],
    runtime: str | None,
    threads: int,
    inputs: limits.Shapes,
) -> Session:
    """Load a graph of format ``kind`` (``onnx``, ``openvino``) into a runtime: the named one, or
    the first of those that read the format and are installed.  ``threads`` 0: all cores;
    ``inputs``: what :func:`takes` says.  The graph is looked through before a runtime sees it.

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
    _check(name, kind, parts, inputs)
    make = OnnxSession if chosen == "onnxruntime" else OpenVinoSession
    try:
        return make(parts, threads)
    except Exception as error:  # runtimes raise types of their own
        raise RequestError(f"{name}: {chosen} does not take its graph ({reason(error)})") from None


def _check(name: str, kind: str, parts: Mapping[str, bytes], inputs: limits.Shapes) -> None:
    side = inputs["image"][-1]
    try:
        if kind == "onnx":
            shapes = {"score": (1,), "map": (1, side, side)}
            limits.check_onnx(parts["model.onnx"], inputs, shapes)
        else:
            limits.check_openvino(parts["model.xml"])
    except GraphError as error:
        raise RequestError(f"{name}: its graph {error}; export it again") from None
    except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"{name}: its graph is damaged ({reason(error)})") from None


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
        options.log_severity_level = 4  # what is wrong is raised, too
        # A shape that is written down and is not the one that follows is an error.
        options.add_session_config_entry("session.strict_shape_type_inference", "1")
        if threads:
            options.intra_op_num_threads = options.inter_op_num_threads = threads
        providers = ["CPUExecutionProvider"]
        self._session = ort.InferenceSession(parts["model.onnx"], options, providers=providers)
        self.runtime = f"onnxruntime {ort.__version__}"

    def __call__(self, given: Mapping[str, Array]) -> tuple[Array, Array]:
        score, values = self._session.run(list(OUTPUTS), dict(given))
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
        limits.check_shapes(
            port.get_partial_shape().to_shape() if port.get_partial_shape().is_static else None
            for operator in model.get_ops()
            for port in operator.outputs()
        )
        wanted = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            wanted["INFERENCE_NUM_THREADS"] = str(threads)
        self._parts = parts  # the weights may be read from there
        self._request = core.compile_model(model, "CPU", wanted).create_infer_request()
        self.runtime = f"openvino {ov.__version__.split('-')[0]}"

    def __call__(self, given: Mapping[str, Array]) -> tuple[Array, Array]:
        self._request.infer(dict(given))
        score, values = (np.array(self._request.get_output_tensor(i).data) for i in (0, 1))
        return score, values
