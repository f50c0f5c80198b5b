"""Dumps of devices: each format is read as it was written, lazily, and whatever is wrong with one is said in one sentence."""

from __future__ import annotations

import base64
import io
import json
import re
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

from graphcheck import limits
from graphcheck.blaming import dumps
from graphcheck.blaming.dumps import lazy, torch_saved
from graphcheck.errors import UsageError

RANDOM = np.random.default_rng(5)
TENSORS: dict[str, np.ndarray] = {
    "/block/Conv_output_0": RANDOM.standard_normal((1, 4, 5, 5)).astype(np.float32),
    "half": RANDOM.standard_normal((3, 7)).astype(np.float16),
    "brain": RANDOM.standard_normal((2, 3)).astype(ml_dtypes.bfloat16),
    "ids": np.arange(5, dtype=np.int64),
    "codes": np.arange(-4, 4, dtype=np.int8).reshape(2, 4),
    "mask": np.array([True, False, True]),
    "scalar": np.float32(2.5).reshape(()),
    "empty": np.zeros((0, 3), np.float32),
    "column": np.asfortranarray(RANDOM.standard_normal((4, 3))),
}


def told(path: Path) -> str:
    """What is said of a dump that cannot be read, or of a tensor of it."""

    def whole() -> None:
        for x in dumps.read(path).tensors.values():
            np.asarray(x).sum()

    with pytest.raises(UsageError) as caught:
        whole()
    text = str(caught.value)
    assert text.startswith(str(path)) and "\n" not in text
    return text.removeprefix(f"{path}: ")


def check(found: dumps.Dump, expected: dict[str, np.ndarray]) -> None:
    assert list(found.tensors) == list(expected)
    for name, x in expected.items():
        y = found.tensors[name]
        assert (y.shape, y.dtype) == (x.shape, x.dtype) == lazy.head(found.tensors, name)
        assert y.tobytes() == x.tobytes()


def mapped(x: Any) -> bool:
    """Whether an array lies in a mapped file."""
    while not isinstance(x, np.memmap) and (below := getattr(x, "obj", getattr(x, "base", None))) is not None:
        x = below
    return isinstance(x, np.memmap)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "d.npz", **{name.replace("/", "|"): x for name, x in TENSORS.items()})
    found = dumps.read(tmp_path / "d.npz")
    check(found, {name.replace("/", "|"): x for name, x in TENSORS.items()})
    assert found.source == str(tmp_path / "d.npz") and found.notes == ()
    assert mapped(found.tensors["half"]) is (save is np.savez)


def test_names_with_slashes_in_an_npz(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        with archive.open("/a/b.npy", "w") as file:
            np.lib.format.write_array(file, TENSORS["half"])
        archive.writestr("readme.txt", "said")
    found = dumps.read(tmp_path / "d.npz")
    check(found, {"/a/b": TENSORS["half"]})
    assert found.notes == ("'readme.txt' and 0 more are not .npy, and were left out",)


def test_a_dump_larger_than_memory_is_mapped(tmp_path: Path) -> None:
    """2 GiB of zeros that the disk does not hold either: the sum of one column touches few of its pages."""
    shape = (1 << 15, 1 << 14)
    with open(tmp_path / "big.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + 4 * shape[0] * shape[1])
    with limits.within(memory=1 << 20):
        x = dumps.read(tmp_path).tensors["big"]
        assert x.shape == shape and mapped(x) and float(x[::4096, 0].sum()) == 0.0


def test_a_compressed_tensor_beyond_the_memory_limit(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "d.npz", x=np.zeros((1 << 12, 1 << 10), np.float32))
    with limits.within(memory=1 << 20):
        assert told(tmp_path / "d.npz") == (
            "tensor 'x' takes 16 MiB once it is decoded, beyond the memory limit of 1 MiB: save it uncompressed"
        )


def test_a_folder_of_npy(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    np.save(tmp_path / "deep" / "x.npy", TENSORS["half"])
    np.save(tmp_path / "y.npy", TENSORS["brain"])
    (tmp_path / "notes.txt").write_text("run 7")
    found = dumps.read(tmp_path)
    check(found, {"deep/x": TENSORS["half"], "y": TENSORS["brain"]})
    assert mapped(found.tensors["y"]) and found.notes == ("1 files of the folder are not .npy, and were left out",)
    check(dumps.read(tmp_path / "y.npy"), {"y": TENSORS["brain"]})


def raw_folder(folder: Path) -> dict[str, Any]:
    """The tensors as raw files, and what the JSON says of them."""
    rows = {}
    for number, (name, x) in enumerate(TENSORS.items()):
        (folder / f"t{number}.bin").write_bytes(x.tobytes())
        rows[name] = {"file": f"t{number}.bin", "shape": list(x.shape), "dtype": x.dtype.name}
    return rows


@pytest.mark.parametrize("form", ["dict", "list", "inner"])
def test_raw_files(tmp_path: Path, form: str) -> None:
    rows = raw_folder(tmp_path)
    listed = [{"name": name, **row} for name, row in rows.items()]
    content = {"dict": {"tensors": rows}, "list": {"tensors": listed, "device": "npu"}, "inner": listed}[form]
    (tmp_path / "tensors.json").write_text(json.dumps(content))
    for path in (tmp_path, tmp_path / "tensors.json"):
        found = dumps.read(path)
        check(found, TENSORS)
        assert mapped(found.tensors["half"])


def test_one_raw_file_for_all(tmp_path: Path) -> None:
    kept = {name: TENSORS[name] for name in ("codes", "half", "brain")}  # at odd offsets
    (tmp_path / "all.bin").write_bytes(b"?" + b"".join(x.tobytes() for x in kept.values()))
    at, rows = 1, []
    for name, x in kept.items():
        rows.append(
            {"name": name, "path": "all.bin", "type": f"tensor({x.dtype})", "dims": list(x.shape), "offset": at}
        )
        at += x.nbytes
    (tmp_path / "index.json").write_text(json.dumps(rows))
    check(dumps.read(tmp_path), kept)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"file": "../secret"}, "tensor 'half' is said to be in '../secret', which is outside the folder of the JSON"),
        ({"file": "none.bin"}, "tensor 'half' has no file: there is no none.bin"),
        (
            {"shape": [3, 8]},
            "tensor 'half' of shape [3, 8] and type float16 takes 48 bytes, and the file has 42 for it",
        ),
        (
            {"shape": [3, 6]},
            "tensor 'half' of shape [3, 6] and type float16 takes 36 bytes, and the file has 42 for it",
        ),
        ({"shape": "3x7"}, "tensor 'half' has the shape 3x7, where a list of sizes is read"),
        ({"dtype": "q7"}, "tensor 'half' is of type 'q7', which is not known; write float16, bfloat16, int8, ..."),
        (
            {"dtype": "object"},
            "tensor 'half' is of type 'object', which is not known; write float16, bfloat16, int8, ...",
        ),
        ({"offset": -4}, "tensor 'half' has the offset '-4', where a number of bytes is read"),
    ],
)
def test_raw_files_that_are_wrong(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    rows = raw_folder(tmp_path)
    rows["half"] |= change
    (tmp_path / "tensors.json").write_text(json.dumps(rows))
    with pytest.raises(UsageError) as caught:
        dumps.read(tmp_path)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["f16", "half", "torch.float16", "FLOAT16", "tensor(float16)", "np.float16", "<f2"])
def test_types_as_people_write_them(text: str) -> None:
    assert lazy.typed(text) == np.float16
    assert lazy.typed("bf16") == ml_dtypes.bfloat16 and lazy.typed("FLOAT8E4M3FN") == ml_dtypes.float8_e4m3fn


def protos(folder: Path) -> dict[str, np.ndarray]:
    """The tensors as onnxruntime's DumpTensorToFile writes them: the name in the proto, what is left of it in the file's."""
    kept = {}
    for name, x in sorted(TENSORS.items(), key=lambda item: re.sub("[^0-9A-Za-z]", "_", item[0])):
        proto = onnx.numpy_helper.from_array(np.ascontiguousarray(x), name)
        (folder / f"{re.sub('[^0-9A-Za-z]', '_', name)}.tensorproto").write_bytes(proto.SerializeToString())
        kept[name] = np.ascontiguousarray(x)
    return kept


def test_onnxruntime_node_dumps(tmp_path: Path) -> None:
    kept = protos(tmp_path)
    found = dumps.read(tmp_path)
    check(found, kept)
    assert mapped(found.tensors["half"])


def test_test_data_of_onnx_with_numbers_in_other_fields(tmp_path: Path) -> None:
    values = {"floats": (1, [0.5, -2.0]), "halves": (10, [15360, 49152]), "longs": (7, [3, -1])}
    for name, (kind, numbers) in values.items():
        proto = onnx.TensorProto(name=name, data_type=kind, dims=[2])
        field = {1: proto.float_data, 10: proto.int32_data, 7: proto.int64_data}[kind]
        field.extend(numbers)
        (tmp_path / f"{name}.pb").write_bytes(proto.SerializeToString())
    found = dumps.read(tmp_path).tensors
    assert {name: found[name].tolist() for name in found} == {
        "floats": [0.5, -2.0],
        "halves": [1.0, -2.0],
        "longs": [3, -1],
    }
    assert found["halves"].dtype == np.float16


def test_onnxruntime_node_dumps_in_a_database(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "execution-trace-pid7.db") as base:
        base.execute(
            "Create table Tensors (Step int not null, Name text not null, Value TensorProto, DeviceType text, "
            "TracedProducer NodeArg, TracedConsumers NodeArgList, primary key (Step, Name))"
        )
        for step in (1, 2):
            for name, x in TENSORS.items():
                value = onnx.numpy_helper.from_array(np.ascontiguousarray(x), name).SerializeToString()
                base.execute("Insert into Tensors values (?, ?, ?, 'CPU', '', '')", (step, name, value))
    base.close()
    found = dumps.read(tmp_path / "execution-trace-pid7.db")
    check(found, {name: np.ascontiguousarray(x) for name, x in TENSORS.items()})
    assert found.notes == ("of 2 runs in it the first was read",)


def test_node_dumps_of_two_ranks(tmp_path: Path) -> None:
    for rank in (0, 1):
        proto = onnx.numpy_helper.from_array(TENSORS["half"], "half")
        (tmp_path / f"half_rank_{rank}.tensorproto").write_bytes(proto.SerializeToString())
    assert told(tmp_path) == (
        "tensor 'half' is in half_rank_0.tensorproto and in half_rank_1.tensorproto: keep the files of one rank, or of one run"
    )


def test_polygraphy_outputs_as_polygraphy_wrote_them() -> None:
    """tests/data/polygraphy_outputs.json is of ``polygraphy run --onnxrt --onnx-outputs mark all --save-outputs``, 0.53.6."""
    path = Path(__file__).parent / "data" / "polygraphy_outputs.json"
    found = dumps.read(path)
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    assert {name: str(lazy.head(found.tensors, name)[1]) for name in found.tensors} == {
        "two": "float16",
        "half": "float16",
        "twice": "float16",
        "y": "float32",
        "code": "int8",
        "which": "int64",
        "positive": "bool",
    }
    assert found.tensors["twice"].tolist() == (x.astype(np.float16) * np.float16(2)).tolist()
    assert found.tensors["code"].tolist() == np.clip(np.rint(x * 2 / 0.25), -128, 127).tolist()


def encoded(x: np.ndarray, how: str = "base64") -> dict[str, Any]:
    """An array as Polygraphy writes it."""
    file = io.BytesIO()
    np.save(file, x)
    text = base64.b64encode(file.getvalue()).decode() if how == "base64" else file.getvalue().decode("latin-1")
    return {"values": {"array": text, "polygraphy_class": "ndarray"}, "polygraphy_class": "LazyArray"}


@pytest.mark.parametrize("how", ["base64", "latin-1"])
def test_polygraphy_arrays_old_and_new(tmp_path: Path, how: str) -> None:
    iteration = {
        "outputs": {name: encoded(x, how) for name, x in TENSORS.items()},
        "runtime": 0.1,
        "runner_name": "trt",
    }
    content = {"lst": [["trt", [iteration, iteration]]], "polygraphy_class": "RunResults"}
    (tmp_path / "f.json").write_text(json.dumps(content, indent=4))
    found = dumps.read(tmp_path / "f.json")
    check(found, TENSORS)
    assert found.notes == ("of 2 iterations in it the first was read",)


def test_polygraphy_of_two_runners(tmp_path: Path) -> None:
    content = {"lst": [["trt", []], ["onnxrt", []]], "polygraphy_class": "RunResults"}
    (tmp_path / "f.json").write_text(json.dumps(content))
    assert told(tmp_path / "f.json") == (
        "holds what 2 runners gave (trt, onnxrt): save the outputs of the one that is in question"
    )


def test_polygraphy_inputs(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text(json.dumps([{"x": encoded(TENSORS["half"])["values"]}]))
    check(dumps.read(tmp_path / "f.json"), {"x": TENSORS["half"]})


def test_tensors_of_torch_are_read_without_torch(tmp_path: Path) -> None:
    """TensorRT's bfloat16 comes as a tensor of torch; the file is laid out as torch.save lays it out."""
    x = TENSORS["brain"]
    pickled = (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nq\x00((X\x07\x00\x00\x00storageq\x01ctorch\nBFloat16Storage\nq\x02"
        b"X\x01\x00\x00\x000q\x03X\x03\x00\x00\x00cpuq\x04K\x06tq\x05QK\x00K\x02K\x03\x86q\x06K\x03K\x01\x86q\x07\x89"
        b"ccollections\nOrderedDict\nq\x08)Rq\ttq\nRq\x0b."
    )
    saved = io.BytesIO()
    with zipfile.ZipFile(saved, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", x.tobytes())
    text = {"tensor": base64.b64encode(saved.getvalue()).decode(), "polygraphy_class": "Tensor"}
    (tmp_path / "f.json").write_text(json.dumps([{"brain": text}]))
    check(dumps.read(tmp_path / "f.json"), {"brain": x})


def test_a_pickle_that_runs_something_is_not_run(tmp_path: Path) -> None:
    saved = io.BytesIO()
    with zipfile.ZipFile(saved, "w") as archive:
        archive.writestr("archive/data.pkl", b"cos\nsystem\n(S'touch harm'\ntR.")
    with pytest.raises(UsageError, match=r"it names os\.system, which is not run"):
        torch_saved.tensor(saved.getvalue(), tmp_path / "f", "x")


def test_pickled_npy_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], object), allow_pickle=True)
    assert told(tmp_path / "x.npy") == (
        "tensor 'x' holds pickled Python objects, which are not read: they could run code; save plain numbers"
    )


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("x.npz", b"", "is not a .npz file, or is cut off (File is not a zip file)"),
        ("x.npz", b"PK\3\4 and so on", "is not a .npz file, or is cut off (File is not a zip file)"),
        ("x.npy", b"numbers", "tensor 'x' is not a .npy array ("),
        ("x.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': ", "tensor 'x' is not a .npy array ("),
        ("x.pb", b"\xff\xff\xff", "is not a TensorProto, or is cut off ("),
        ("x.pb", b"", "is not a TensorProto: it says no type and shape"),
        ("x.json", b'{"polygraphy_class": "RunResults", "lst": [{"x": {"array": "AAAA', "is cut off within an array"),
        (
            "x.json",
            b'{"polygraphy_class": "RunResults", "lst": [7]}',
            "is not a file of Polygraphy's: its runs are not pairs of",
        ),
        ("x.json", b'[{"x": {"array": "!", "polygraphy_class": "ndarray"}}]', "tensor 'x' is not base64 ("),
        (
            "x.json",
            b"[1, 2]",
            "is not a file of tensors in a format that is read here (npz, polygraphy, raw, onnxruntime, npy)",
        ),
        ("x.db", b"SQLite format 3\0 but no more", "is not a database of onnxruntime's node dumps ("),
    ],
)
def test_files_that_are_broken(tmp_path: Path, file: str, content: bytes, said: str) -> None:
    (tmp_path / file).write_bytes(content)
    assert told(tmp_path / file).startswith(said)


def test_folders_without_tensors(tmp_path: Path) -> None:
    assert (
        told(tmp_path)
        == "is not a folder of tensors in a format that is read here (npz, polygraphy, raw, onnxruntime, npy)"
    )
    assert told(tmp_path / "none") == "there is no such file or folder"


def test_files_that_are_cut_off(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", TENSORS["half"])
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(whole[:-3])
    assert (
        told(tmp_path / "x.npy")
        == "tensor 'x' of shape [3, 7] and type float16 takes 42 bytes, and the file has 39 for it"
    )
    np.savez_compressed(tmp_path / "c.npz", x=RANDOM.standard_normal(4000))
    octets = bytearray((tmp_path / "c.npz").read_bytes())
    octets[9000:9010] = bytes(10)
    (tmp_path / "c.npz").write_bytes(octets)
    assert told(tmp_path / "c.npz").startswith("tensor 'x' cannot be decompressed (")


def test_a_member_held_twice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", b"")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x.npy", b"")
    assert "tensor 'x' is" in told(tmp_path / "d.npz")


PLUGIN = """
import numpy as np
NAME = "hex"
def accepts(path):
    return path.suffix == ".hex"
def read(path):
    return {"x": np.frombuffer(bytes.fromhex(path.read_text()), np.uint8)}, ["read by another distribution"]
"""


def distribution(folder: Path, module: str, monkeypatch: pytest.MonkeyPatch, point: str = "") -> None:
    """Another distribution on the path, with one entry point."""
    name = folder.name.replace("-", "_")
    (folder / f"{name}.py").write_text(module)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[graphcheck.dumps]\nhex = {point or name}\n")
    monkeypatch.syspath_prepend(str(folder))


def test_a_reader_of_another_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder := tmp_path / "hexdumps_good").mkdir()
    distribution(folder, PLUGIN, monkeypatch)
    (tmp_path / "d.hex").write_text("0a0b")
    found = dumps.read(tmp_path / "d.hex")
    assert found.tensors["x"].tolist() == [10, 11] and found.notes == ("read by another distribution",)
    (tmp_path / "d.hex").write_text("zz")
    assert told(tmp_path / "d.hex").startswith("the reader of hex dumps failed (ValueError: ")


@pytest.mark.parametrize(
    ("module", "said"),
    [("import nothing_of_this_name", "hexdumps_0: its reader of dumps 'hex' cannot be loaded (ModuleNotFoundError: "),
     ("NAME = 'hex'\ndef read(path): ...", "hexdumps_1: is not a reader of dumps, since it has no accepts")],
)  # fmt: skip
def test_a_reader_that_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, said: str) -> None:
    (folder := tmp_path / f"hexdumps_{int('no accepts' in said)}").mkdir()
    distribution(folder, module, monkeypatch)
    (tmp_path / "d.hex").write_text("0a0b")
    with pytest.raises(UsageError) as caught:
        dumps.read(tmp_path / "d.hex")
    assert str(caught.value).startswith(said)
