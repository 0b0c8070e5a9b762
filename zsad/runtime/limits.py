"""What a package's graph may be, checked before a runtime sees it.

A graph is data, but it says how much memory it takes.  So every tensor in it must have a shape that
is written down, what follows from constants must be constant, and all of it must stay below the
bounds here.  The runtime then works the shapes out once more and takes none that is other than
what was written down (:mod:`zsad.runtime.graph`).
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from zsad.runtime.onnx_file import GraphError, Model, Node, Value, read

MOST_NODES = 50_000
MOST_TENSOR = 2**30  # bytes of one tensor
MOST_HELD = 2**32  # bytes that are needed at one moment, weights left aside
MOST_XML = 64 * 2**20  # bytes of an OpenVINO description
Shapes = Mapping[str, tuple[int, ...]]

# Operators whose shapes follow from those of their inputs and from constants: no loops, no
# branches, nothing whose size depends on values.  With them, the inputs that are shapes.
_SHAPE_INPUTS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Reshape", "Expand", "Tile", "TopK", "Split", "Squeeze", "Unsqueeze"), (1,)),
    **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1"), (1,)),
    **dict.fromkeys(("ReduceL2", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp"), (1,)),
    **{"ReduceSumSquare": (1,), "OneHot": (1,), "ConstantOfShape": (0,), "Range": (0, 1, 2)},
    **{"Resize": (1, 2, 3), "Slice": (1, 2, 3, 4), "Pad": (1, 3)},
}
_OPERATORS = """
Abs Acos Add And ArgMax ArgMin Asin Atan AveragePool BatchNormalization Cast CastLike Ceil Celu
Clip Concat Conv ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Einsum Elu Equal Erf
Exp EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool
GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish
Identity InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log
LogSoftmax MatMul Max MaxPool Mean Min Mish Mod Mul Neg Not Or PRelu Pow QuantizeLinear
Reciprocal Relu Round ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Softmax Softplus
Softsign SpaceToDepth Sqrt Sub Sum Tan Tanh ThresholdedRelu Transpose Trilu Where Xor
"""
OPERATORS = frozenset(_SHAPE_INPUTS) | frozenset(_OPERATORS.split())
_LAYERS = """
Abs Add AvgPool BatchNormInference Broadcast Ceiling Clamp Concat Const Convert ConvertLike
Convolution ConvolutionBackpropData Cos CumSum DepthToSpace Divide Einsum Elu Equal Erf Exp Eye
FakeQuantize Floor FloorMod Gather GatherElements GatherND Gelu Greater GreaterEqual GridSample
GroupConvolution GroupConvolutionBackpropData GroupNormalization HSigmoid HSwish HardSigmoid
Interpolate IsInf IsNaN Less LessEqual Log LogSoftmax LogicalAnd LogicalNot LogicalOr LogicalXor
MVN MatMul MaxPool Maximum Minimum Mish Mod Multiply Negative NotEqual OneHot PReLU Pad
Parameter Power ROIAlign Range ReLU ReduceL1 ReduceL2 ReduceLogicalAnd ReduceLogicalOr ReduceMax
ReduceMean ReduceMin ReduceProd ReduceSum Reshape Result Round ScaledDotProductAttention
ScatterElementsUpdate ScatterNDUpdate Select ShapeOf Sigmoid Sign Sin Slice SoftMax SoftPlus
SoftSign SpaceToDepth Split Sqrt SquaredDifference Squeeze StridedSlice Subtract Swish Tanh Tile
TopK Transpose Unsqueeze VariadicSplit
"""
LAYERS = frozenset(_LAYERS.split())


def check_onnx(content: bytes, inputs: Shapes, outputs: Shapes) -> None:
    """Raise :class:`GraphError` for an ONNX model that has other inputs or outputs than these, or
    may take memory without bound."""
    model = read(content, MOST_NODES)
    for said, told, wanted in (
        ("inputs", model.inputs, inputs),
        ("outputs", model.outputs, outputs),
    ):
        shapes = {name: value.shape for name, value in told.items()}
        if shapes != dict(wanted) or any(value.kind != 1 for value in told.values()):
            raise GraphError(f"has {said} that a package has not: {', '.join(told) or 'none'}")
    known = {**model.constants, **model.inputs}
    for node in model.nodes:
        if node.kind not in OPERATORS:
            raise GraphError(f"holds the operator {node.kind!r}, which no package has")
        for place in _SHAPE_INPUTS.get(node.kind, ()):
            given = node.inputs[place : place + 1]
            if given and given[0] and given[0] not in model.small:
                raise GraphError(f"has a {node.kind} whose size depends on values")
        for name in node.outputs:
            if not name:
                continue
            value = model.outputs.get(name) or model.values.get(name)
            if value is None or name in known:
                raise GraphError(f"does not say the shape of {name!r}, or says it twice")
            known[name] = value
        _grown(model, node, known)
    _bounded(model, known)


def _grown(model: Model, node: Node, known: Mapping[str, Value]) -> None:
    """Refuse what makes much of little, where it says that it makes less."""
    if node.kind not in ("ConstantOfShape", "Expand", "Tile", "Range", "Resize", "Pad"):
        return
    numbers = [model.small.get(name) for name in node.inputs]
    first = known[node.inputs[0]].shape if node.inputs[0] in known else ()
    wanted: Iterable[float] | None = None
    if node.kind == "ConstantOfShape" and numbers[0] is not None:
        wanted = numbers[0].tolist()
    elif node.kind == "Expand" and numbers[1] is not None:
        wanted = np.broadcast_shapes(first, tuple(numbers[1].tolist()))
    elif node.kind == "Tile" and numbers[1] is not None:
        wanted = [n * times for n, times in zip(first, numbers[1].tolist(), strict=True)]
    elif node.kind == "Range":
        start, end, step = (float(n) for n in numbers if n is not None)
        wanted = [max(0, math.ceil((end - start) / step))]
    elif node.kind == "Pad" and len(node.inputs) < 4 and numbers[1] is not None:
        pads = numbers[1].reshape(2, -1).sum(0).tolist()
        wanted = [n + more for n, more in zip(first, pads, strict=True)]
    elif node.kind == "Resize" and len(numbers) > 3 and numbers[3] is not None:
        wanted = numbers[3].tolist()
    elif node.kind == "Resize" and len(numbers) > 2 and numbers[2] is not None:
        wanted = [math.floor(n * s) for n, s in zip(first, numbers[2].tolist(), strict=True)]
    if wanted is None or tuple(wanted) != known[node.outputs[0]].shape:
        raise GraphError(f"says another size of a {node.kind} than it has")


def _bounded(model: Model, known: Mapping[str, Value]) -> None:
    """Refuse what takes too much at once, in the order in which the operators stand."""
    last = {name: i for i, node in enumerate(model.nodes) for name in node.inputs}
    held = sum(value.bytes for value in model.inputs.values())
    for i, node in enumerate(model.nodes):
        made = [name for name in node.outputs if name]
        held += _sum(known[name] for name in made)
        if held > MOST_HELD:
            raise GraphError(f"takes more than {MOST_HELD // 2**30} GiB at once")
        over = {name for name in (*node.inputs, *made) if last.get(name, i) == i}
        over -= model.constants.keys() | model.outputs.keys() | model.inputs.keys()
        held -= sum(known[name].bytes for name in over if name in known)


def _sum(values: Iterable[Value]) -> int:
    total = 0
    for value in values:
        if value.bytes > MOST_TENSOR:
            raise GraphError(f"holds a tensor of more than {MOST_TENSOR // 2**30} GiB")
        total += value.bytes
    return total


def check_openvino(description: bytes) -> None:
    """Raise :class:`GraphError` for an OpenVINO description that may take memory without bound, as
    far as it says so itself; :func:`check_shapes` sees what OpenVINO makes of it."""
    if len(description) > MOST_XML or re.search(rb"<!(DOCTYPE|ENTITY)", description):
        raise GraphError("is larger than any, or defines words of its own")
    try:
        layers = ET.fromstring(description).findall("layers/layer")
    except ET.ParseError as error:
        raise GraphError(f"is damaged ({error})") from None
    if len(layers) > MOST_NODES:
        raise GraphError(f"holds more than {MOST_NODES:,} operators")
    for layer in layers:
        kind = layer.get("type")
        if kind not in LAYERS or not str(layer.get("version")).startswith("opset"):
            raise GraphError(f"holds the operator {kind!r}, which no package has")
        for port in layer.iterfind("output/port"):
            dims = [str(d.text) for d in port.iterfind("dim")]
            if not all(d.isdecimal() and len(d) < 12 for d in dims):
                raise GraphError(f"does not say the shape of a {kind}")
            check_shapes([[int(d) for d in dims]])


def check_shapes(shapes: Iterable[Sequence[int] | None]) -> None:
    """Raise :class:`GraphError` for a shape that is not fixed (None) or too large."""
    for shape in shapes:
        if shape is None:
            raise GraphError("holds a tensor whose size depends on values")
        if math.prod(shape) * 4 > MOST_TENSOR:
            raise GraphError(f"holds a tensor of more than {MOST_TENSOR // 2**30} GiB")
