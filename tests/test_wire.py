"""Files that are read and hashed ahead give what reading them plainly gives."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import onnx.helper as oh
import pytest

import graphcheck
from graphcheck.errors import ModelError
from graphcheck.files import model, wire
from graphcheck.files.contents import Content, Contents


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with one initializer large enough to be hashed ahead (W) and one that is only mapped (v)."""
    weights = {"W": np.arange(1 << 15, dtype=np.float32).reshape(128, 256), "v": np.ones(512, np.float32)}
    nodes = [oh.make_node("MatMul", ["x", "W"], ["y"]), oh.make_node("Identity", ["v"], ["z"])]
    shapes = {"y": [1, 256], "z": [512]}
    outputs = [oh.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    x = oh.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 128])
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    made = oh.make_model(oh.make_graph(nodes, "g", [x], outputs, constants))
    onnx.save(made, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_digests_made_ahead_are_those_of_the_arrays(path: Path) -> None:
    wire.ahead(path, path)
    read = model.read(path)
    assert len(read.meta["graphcheck.file"].digests) == 1
    contents = Contents()
    model.adopt(read, contents)
    array = read.graph.initializers["W"].const_value.numpy()  # type: ignore[union-attr]
    for view in (array, array.T, array[::2]):
        content = contents.of(view)
        assert isinstance(content, Content) and content.digest == hashlib.sha256(view.tobytes()).digest()
    assert len({contents.of(view) for view in (array, array.T, array[::2], array.copy())}) == 3


def test_a_digest_made_ahead_is_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wire.ahead(path, path)
    read = model.read(path)
    contents = Contents()
    model.adopt(read, contents)
    content = contents.of(read.graph.initializers["W"].const_value.numpy())  # type: ignore[union-attr]
    monkeypatch.setattr("graphcheck.files.contents.hashlib.sha256", None)
    assert isinstance(content, Content) and len(content.digest) == 32


def test_the_first_file_alone_is_hashed(path: Path) -> None:
    other = path.with_name("other.onnx")
    other.write_bytes(path.read_bytes())
    wire.ahead(path, other)
    assert [len(model.read(p).meta["graphcheck.file"].digests) for p in (path, other)] == [1, 0]


def test_what_was_read_ahead_is_handed_out_once(path: Path) -> None:
    wire.ahead(path)
    first, second = wire.opened(path), wire.opened(path)
    assert first is not second
    assert (first.stripped, first.raw) == (second.stripped, second.raw)
    assert second.digests == {}


def test_a_damaged_file_read_ahead_is_named(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-700])
    wire.ahead(path)
    with pytest.raises(ModelError, match=r"m\.onnx.*not an ONNX model, or is cut off"):
        model.read(path)


def test_nothing_is_read_ahead_when_a_file_is_missing(path: Path) -> None:
    wire.ahead(path, path.with_name("missing.onnx"))
    assert wire.opened(path).digests == {}


def test_a_file_that_has_changed_is_read_anew(path: Path) -> None:
    wire.ahead(path)
    os.utime(path, ns=(1, 1))
    assert wire.opened(path).digests == {}


def test_a_small_file_that_is_written_into_stays_as_it_was_read(path: Path) -> None:
    read = wire.opened(path)
    before = bytes(read.data)
    with open(path, "r+b") as file:  # as a tool does that opens a file for writing: it is empty first
        file.truncate(0)
        file.write(b"other")
    assert read.data[:] == before and len(read._digest(0, len(before))) == 32


@pytest.mark.parametrize("largest", [0, wire.READ_BYTES])
def test_a_file_that_changes_while_it_is_compared_has_no_verdict(
    path: Path, monkeypatch: pytest.MonkeyPatch, largest: int
) -> None:
    monkeypatch.setattr(wire, "READ_BYTES", largest)
    copy = path.with_name("copy.onnx")
    copy.write_bytes(path.read_bytes())

    def written(_: str) -> None:
        os.utime(copy, ns=(1, 1))

    with pytest.raises(ModelError, match=r"copy\.onnx: was changed while it was being compared"):
        graphcheck.compare(path, copy, run=False, progress=written)
    assert str(graphcheck.compare(path, copy, run=False).verdict) == "identical"


def test_numbers_that_stand_one_by_one_are_one_array(tmp_path: Path) -> None:
    numbers = np.arange(1000, dtype=np.float32)
    tensor = oh.make_tensor("w", onnx.TensorProto.FLOAT, [1000], numbers.tolist())
    assert tensor.float_data and not tensor.raw_data
    ends = [oh.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1000]) for name in "xy"]
    proto = oh.make_model(oh.make_graph([oh.make_node("Add", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [tensor]))
    onnx.save(proto, tmp_path / "typed.onnx")
    for given in (tmp_path / "typed.onnx", proto):
        read = model.read(given)
        held = read.graph.initializers["w"].const_value
        assert held is not None and held.numpy() is held.numpy() and np.array_equal(held.numpy(), numbers)
        file = model.file_of(read)
        assert (file is None) == (given is proto) and (file is None or file.stripped == b""), "it was read once"
