"""Models whose external data is not what it should be: name -> how to make it in a folder of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto, helper

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)
SECRET = np.full(12, 1234.5, np.float32).tobytes()  # what lies outside the model's folder, and no answer may hold
_HEAD = '<ir_version: 10, opset_import: ["" : 21]>'


def tensor(
    dims: tuple[int, ...] = (3, 4), kind: int = TensorProto.FLOAT, name: str = "w", **fields: object
) -> TensorProto:
    """A tensor whose data is elsewhere: fields are location, offset, length ..."""
    proto = TensorProto(name=name, data_type=kind, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in fields.items():
        proto.external_data.add(key=key, value=str(value))
    return proto


def initializer(*tensors: TensorProto) -> onnx.ModelProto:
    """x [2, 3] times the tensor."""
    model = onnx.parser.parse_model(f"{_HEAD} g (float[2,3] x) => (float[2,4] y) {{ y = MatMul(x, w) }}")
    model.graph.initializer.extend(tensors)
    return model


def constant(proto: TensorProto) -> onnx.ModelProto:
    """The tensor as the value of a Constant."""
    model = initializer()
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=proto))
    return model


def in_branch(proto: TensorProto, *, as_constant: bool) -> onnx.ModelProto:
    """The tensor inside a subgraph, as an initializer or a Constant."""
    out = [helper.make_tensor_value_info("o", 1, [2, 4])]
    nodes = [helper.make_node("Constant", [], ["w"], value=proto)] if as_constant else []
    nodes.append(helper.make_node("MatMul", ["x", "w"], ["o"]))
    branch = helper.make_graph(nodes, "b", [], out, [] if as_constant else [proto])
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)], "g",
        [helper.make_tensor_value_info("x", 1, [2, 3])], [helper.make_tensor_value_info("y", 1, [2, 4])],
        [helper.make_tensor("c", 9, [], [True])],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def in_function(proto: TensorProto) -> onnx.ModelProto:
    """The tensor as a Constant of a model-local function."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21, "f" : 1]> g (float[2,3] x) => (float[2,4] y) { y = f.f(x) }'
    )
    nodes = [helper.make_node("Constant", [], ["w"], value=proto), helper.make_node("MatMul", ["a", "w"], ["b"])]
    model.functions.append(helper.make_function("f", "f", ["a"], ["b"], nodes, [helper.make_opsetid("", 21)]))
    return model


def in_sparse(proto: TensorProto) -> onnx.ModelProto:
    """The tensor as the values of a sparse Constant."""
    model = initializer()
    indices = onnx.numpy_helper.from_array(np.arange(12), "i")
    sparse = onnx.SparseTensorProto(values=proto, indices=indices, dims=[3, 4])
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=sparse))
    return model


def _write(folder: Path, model: onnx.ModelProto, data: bytes = WEIGHT.tobytes()) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    (folder / "w.bin").write_bytes(data)
    return path


def _plain(**fields: object) -> Callable[[Path], Path]:
    return lambda folder: _write(folder, initializer(tensor(**fields)))  # type: ignore[arg-type]


def _outside(make: Callable[[TensorProto], onnx.ModelProto], location: str = "../secret.bin") -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        (folder.parent / "secret.bin").write_bytes(SECRET)
        where = location.replace("ABSOLUTE", str(folder.parent / "secret.bin"))
        dims = (12,) if make is in_sparse else (3, 4)
        return _write(folder, make(tensor(dims, location=where)))

    return build


def _linked(folder: Path) -> Path:
    (folder.parent / "secret.bin").write_bytes(SECRET)
    os.symlink(folder.parent / "secret.bin", folder / "link.bin")
    return _write(folder, initializer(tensor(location="link.bin")))


def _linked_folder(folder: Path) -> Path:
    (folder.parent / "secret.bin").write_bytes(SECRET)
    os.symlink(folder.parent, folder / "sub")
    return _write(folder, initializer(tensor(location="sub/secret.bin")))


def _hard_link(folder: Path) -> Path:
    (folder.parent / "secret.bin").write_bytes(SECRET)
    os.link(folder.parent / "secret.bin", folder / "hard.bin")
    return _write(folder, initializer(tensor(location="hard.bin")))


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return _write(folder, initializer(tensor(location="pipe")))


def _two(first: dict[str, object], second: dict[str, object]) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        model = initializer(tensor(location="w.bin", **first))  # type: ignore[arg-type]
        model.graph.initializer.append(tensor((2, 4), name="b", location="w.bin", **second))  # type: ignore[arg-type]
        model.graph.node[0].output[0] = "t"
        model.graph.node.add(op_type="Add", input=["t", "b"], output=["y"])
        return _write(folder, model)

    return build


# refused with exit code 2
REFUSED: dict[str, Callable[[Path], Path]] = {
    "parent folder": _outside(initializer),
    "absolute path": _outside(initializer, "ABSOLUTE"),
    "absolute path of the system": _outside(initializer, "/etc/passwd"),
    "device": _outside(initializer, "/dev/zero"),
    "up and down": _outside(initializer, "sub/../../secret.bin"),
    "link out of the folder": _linked,
    "link of a folder": _linked_folder,
    "hard link out of the folder": _hard_link,
    "pipe": _pipe,
    "Constant outside": _outside(constant),
    "initializer of a subgraph outside": _outside(lambda t: in_branch(t, as_constant=False)),
    "Constant of a subgraph outside": _outside(lambda t: in_branch(t, as_constant=True)),
    "Constant of a function outside": _outside(in_function),
    "sparse Constant outside": _outside(in_sparse),
    "missing": _plain(location="nowhere.bin"),
    "no location": _plain(offset=0),
    "empty location": _plain(location=""),
    "location is the folder": _plain(location="."),
    "location with NUL": _plain(location="w\0.bin"),
    "location of 1 MB": _plain(location="w" * 2**20),
    "offset beyond the end": _plain(location="w.bin", offset=10**6),
    "offset in the middle": _plain(location="w.bin", offset=4),
    "offset negative": _plain(location="w.bin", offset=-4),
    "offset no number": _plain(location="w.bin", offset="four"),
    "offset of 5,000 digits": _plain(location="w.bin", offset="9" * 5000),
    "offset 2**80": _plain(location="w.bin", offset=2**80),
    "length no number": _plain(location="w.bin", length="all"),
    "length negative": _plain(location="w.bin", length=-48),
    "length too short": _plain(location="w.bin", length=16),
    "length too long": _plain(location="w.bin", length=4800),
    "length of another shape": _plain(dims=(3, 5), location="w.bin", length=48),
    "shape of 10**12 elements": _plain(dims=(10**6, 10**6), location="w.bin"),
    "shape of 10**12 elements, length as the file": _plain(dims=(10**6, 10**6), location="w.bin", length=48),
    "negative shape": _plain(dims=(-3, -4), location="w.bin"),
    "strings": _plain(kind=TensorProto.STRING, location="w.bin"),
    "undefined type": _plain(kind=0, location="w.bin"),
    "unknown type": _plain(kind=99, location="w.bin"),
    "Constant beyond the end": lambda folder: _write(folder, constant(tensor(location="w.bin", offset=4))),
}

# sound, if odd
ADMITTED: dict[str, Callable[[Path], Path]] = {
    "plain": _plain(location="w.bin"),
    "offset and length": _plain(location="w.bin", offset=0, length=48),
    "overlapping": _two({}, {"offset": 4}),
    "the same place twice": _two({}, {"offset": 0}),
    "Constant inside": lambda folder: _write(folder, constant(tensor(location="w.bin"))),
    "Constant of a subgraph inside": lambda folder: _write(folder, in_branch(tensor(location="w.bin"), as_constant=True)),
    "the model file itself": lambda folder: _write(folder, initializer(tensor(location="model.onnx"))),
}  # fmt: skip
