"""A recorded method as ONNX, and that as OpenVINO's own format.

OpenVINO reads the ONNX file: its front end for torch lacks operators that methods use, and gave
wrong maps from the second picture on.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import tempfile
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path

import torch

from zsad.backbones.engines.openvino_cpu import quiet, runtime
from zsad.errors import RequestError
from zsad.runtime.graph import OUTPUTS

FORMATS = ("onnx", "openvino")
NEEDED = {"onnx": ("onnx", "onnxscript"), "openvino": ("onnx", "onnxscript", "openvino")}


def check(kind: str) -> None:
    """Raise :class:`RequestError` for an unknown format, or one whose packages are missing."""
    if kind not in FORMATS:
        raise RequestError(f"--format {kind}: choose one of {', '.join(FORMATS)}")
    for package in NEEDED[kind]:
        try:
            there = importlib.util.find_spec(package) is not None
        except (ImportError, ValueError):
            there = False
        if not there:
            raise RequestError(
                f"--format {kind}: needs the package {package}; `pip install 'zsad[export]'`"
            )


def onnx(program: torch.export.ExportedProgram, inputs: Iterable[str]) -> bytes:
    """Return a recorded method as an ONNX model: ``inputs`` -> ``score``, ``map``."""
    with quiet(), redirect_stdout(io.StringIO()):
        made = torch.onnx.export(
            program,
            dynamo=True,
            input_names=list(inputs),
            output_names=list(OUTPUTS),
            verbose=False,
        )
        assert made is not None
        content: bytes = made.model_proto.SerializeToString()
    return content


def openvino(content: bytes) -> dict[str, bytes]:
    """Return an ONNX model as OpenVINO's description and weights, in the precision they have."""
    ov = runtime()
    model = ov.Core().read_model(content)
    with tempfile.TemporaryDirectory(prefix="zsad-export-") as folder:
        path = Path(folder) / "model.xml"
        ov.save_model(model, str(path), compress_to_fp16=False)
        return {
            "model.xml": path.read_bytes(),
            "model.bin": path.with_suffix(".bin").read_bytes(),
        }


def converted(
    program: torch.export.ExportedProgram, kind: str, inputs: Iterable[str]
) -> dict[str, bytes]:
    """Return the members of a package of one of the :data:`FORMATS`."""
    model = onnx(program, inputs)
    return {"model.onnx": model} if kind == "onnx" else openvino(model)
