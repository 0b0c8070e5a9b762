"""A package's graph is looked through before a runtime sees it: nothing in it grows at will."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zsad.cli.main import main
from zsad.errors import RequestError
from zsad.runtime import limits, package_file
from zsad.runtime.graph import open_graph, takes
from zsad.runtime.onnx_file import GraphError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

INPUTS = takes(8, False)
OUTPUTS = {"score": (1,), "map": (1, 8, 8)}
Shape = Sequence[int | str]


def value(name: str, shape: Shape, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def ints(name: str, *numbers: int) -> Any:
    return numpy_helper.from_array(np.array(numbers, np.int64), name)


def model(
    nodes: Sequence[Any], shapes: dict[str, Shape], tensors: Sequence[Any] = (), **more: Any
) -> Any:
    """A graph that is sound, with further nodes."""
    ends = [
        helper.make_node("ReduceMean", ["image", "first"], ["map"], keepdims=0),
        helper.make_node("ReduceMean", ["map", "rest"], ["score"], keepdims=0),
    ]
    graph = helper.make_graph(
        [*nodes, *ends],
        "g",
        [value("image", INPUTS["image"])],
        [value(name, shape) for name, shape in OUTPUTS.items()],
        [ints("first", 1), ints("rest", 1, 2), *tensors],
        value_info=[value(name, shape) for name, shape in shapes.items()],
    )
    sets = [helper.make_opsetid("", 20), helper.make_opsetid("mine", 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=10, **more)


def checked(made: Any) -> None:
    content = made if isinstance(made, bytes) else made.SerializeToString()
    limits.check_onnx(content, INPUTS, OUTPUTS)


def node(kind: str, inputs: Sequence[str], **more: Any) -> Any:
    return helper.make_node(kind, inputs, ["x"], **more)


HUGE = 2**40
GROWING = [
    ("ConstantOfShape", ["n"], [ints("n", HUGE)], [HUGE]),
    ("ConstantOfShape", ["n"], [ints("n", HUGE)], [1]),
    ("Expand", ["image", "n"], [ints("n", 1 << 22, 1, 1, 1)], [1 << 22, 3, 8, 8]),
    ("Expand", ["image", "n"], [ints("n", 1 << 20, 1, 1, 1)], [1, 3, 8, 8]),
    ("Tile", ["image", "n"], [ints("n", 1, 1, 1 << 20, 1 << 10)], [1, 3, 8, 8]),
    ("Range", ["a", "n", "b"], [ints("a"), ints("n"), ints("b")], [4]),
    ("Resize", ["image", "", "", "n"], [ints("n", 1, 3, 1 << 20, 1 << 20)], [1, 3, 8, 8]),
    ("Pad", ["image", "n"], [ints("n", 0, 0, 0, 0, 0, 0, HUGE, HUGE)], [1, 3, 8, 8]),
]


def test_a_sound_graph_is_taken() -> None:
    made = model([node("Expand", ["image", "n"])], {"x": [2, 3, 8, 8]}, [ints("n", 2, 1, 1, 1)])
    checked(made)
    parts = {"model.onnx": made.SerializeToString()}
    session = open_graph("p", "onnx", parts, "onnxruntime", 1, INPUTS)
    image = np.random.default_rng(0).random((1, 3, 8, 8)).astype(np.float32)
    score, values = session({"image": image})
    np.testing.assert_allclose(values, image.mean(1), atol=1e-6)
    assert score == pytest.approx(image.mean(), abs=1e-6)


@pytest.mark.parametrize(("kind", "inputs", "tensors", "said"), GROWING)
def test_what_makes_much_of_little_is_refused(
    kind: str, inputs: list[str], tensors: list[Any], said: list[int]
) -> None:
    """Whether it says so or not."""
    if kind == "Range":
        numbers = {"a": 0, "n": 1 << 40, "b": 1}
        tensors = [numpy_helper.from_array(np.array(v), k) for k, v in numbers.items()]
    with pytest.raises(GraphError, match=r"more than \d GiB|another size"):
        checked(model([node(kind, inputs)], {"x": said}, tensors))


@pytest.mark.parametrize("lied", [[192, 192], [1, 1]])
def test_a_shape_that_does_not_follow_is_refused_by_the_runtime(lied: list[int]) -> None:
    nodes = [
        helper.make_node("Reshape", ["image", "a"], ["p"]),
        helper.make_node("Reshape", ["image", "b"], ["q"]),
        node("MatMul", ["p", "q"]),
    ]
    shapes: dict[str, Shape] = {"p": [192, 1], "q": [1, 192], "x": lied}
    made = model(nodes, shapes, [ints("a", 192, 1), ints("b", 1, 192)])
    parts = {"model.onnx": made.SerializeToString()}
    if lied == [192, 192]:
        open_graph("p", "onnx", parts, "onnxruntime", 1, INPUTS)
        return
    with pytest.raises(RequestError, match="does not take its graph"):
        open_graph("p", "onnx", parts, "onnxruntime", 1, INPUTS)


def outside(made: Any) -> Any:
    tensor = made.graph.initializer.add()
    tensor.CopyFrom(ints("far", 1))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return made


def claimed(made: Any) -> Any:
    tensor = made.graph.initializer.add()
    tensor.CopyFrom(ints("far", 1))
    tensor.dims[0] = HUGE
    return made


def with_function(made: Any) -> Any:
    made.functions.add(name="f", domain="mine")
    return made


def twice(made: Any) -> bytes:
    content: bytes = made.SerializeToString()
    return content + content


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (outside(model([], {})), "keeps tensors in other files"),
        (claimed(model([], {})), r"claims a tensor of [\d,]+ bytes"),
        (with_function(model([], {})), "holds functions"),
        (twice(model([], {})), "twice"),
        (model([node("Mine", ["image"], domain="mine")], {"x": [1]}), "of another domain"),
        (model([node("NonZero", ["image"])], {"x": [4, 192]}), "operator 'NonZero', which no"),
        (model([node("Relu", ["image"])], {}), "does not say the shape of 'x'"),
        (model([node("Relu", ["image"])], {"x": ["n", 3, 8, 8]}), "does not say the shape"),
        (model([node("Tile", ["image", "image"])], {"x": [1]}), "whose size depends on values"),
        (model([node("Relu", ["image"])] * 2, {"x": [1, 3, 8, 8]}), "says it twice"),
        (model([], {}).SerializeToString()[:-9], "damaged|cut off"),
        (b"no graph at all", "damaged"),
    ],
)
def test_what_no_package_holds_is_refused(made: Any, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        checked(made)


def test_graphs_within_graphs_and_many_operators_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inner = helper.make_graph([], "inner", [], [])
    made = model([node("If", ["image"], then_branch=inner, else_branch=inner)], {"x": [1]})
    with pytest.raises(GraphError, match="graphs within graphs"):
        checked(made)
    monkeypatch.setattr(limits, "MOST_NODES", 1)
    with pytest.raises(GraphError, match="more than 1 operators"):
        checked(model([], {}))


def test_what_is_held_at_once_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four tensors that are all read by the last operator, against four that follow each other."""
    names = [f"y{i}" for i in range(4)]
    shapes: dict[str, Shape] = {**{name: [1, 3, 8, 8] for name in names}, "x": [1, 12, 8, 8]}
    wide = [helper.make_node("Relu", ["image"], [name]) for name in names]
    chain = [
        helper.make_node("Relu", [before], [name]) for before, name in zip(["image", *names], names)
    ]
    monkeypatch.setattr(limits, "MOST_HELD", 5 * 768)
    checked(model(chain, shapes))
    with pytest.raises(GraphError, match="at once"):
        checked(model([*wide, node("Concat", names, axis=1)], shapes))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ('<layer type="Loop" version="opset5"/>', "'Loop', which no package has"),
        ('<layer type="Add" version="extension"/>', "'Add', which no package has"),
        (
            '<layer type="Add" version="opset1"><output><port><dim>-1</dim></port></output>'
            "</layer>",
            "does not say the shape of a Add",
        ),
        (
            '<layer type="Tile" version="opset1"><output><port><dim>99999999999</dim></port>'
            "</output></layer>",
            "more than 1 GiB",
        ),
    ],
)
def test_descriptions_of_openvino(layers: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        limits.check_openvino(f"<net><layers>{layers}</layers></net>".encode())


@pytest.mark.parametrize("content", [b"<net", b"<!DOCTYPE a><net/>", b'<!ENTITY a "b">'])
def test_descriptions_that_are_none(content: bytes) -> None:
    with pytest.raises(GraphError, match=r"damaged|words of its own"):
        limits.check_openvino(content)


def test_zsad_run_says_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = [1 / 3] * 3
    seen = {"size": 8, "interpolation": "bicubic", "mean": numbers, "std": numbers}
    parts = {"model.onnx": outside(model([], {})).SerializeToString()}
    path = tmp_path / "part.zsad"
    path.write_bytes(package_file.write(path, {"format": "onnx", "preprocess": seen}, parts))
    (tmp_path / "x.png").touch()
    assert main(["run", str(path), str(tmp_path / "x.png")]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert "its graph keeps tensors in other files; export it again" in said
