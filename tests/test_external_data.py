"""Models whose weights lie in other files: rewritten with those files copied, cloned or left alone, all or nothing."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from patch_cases import conv

from graphcheck.cli import main
from graphcheck.errors import ModelError, UsageError
from graphcheck.files import external
from graphcheck.files import model as model_
from graphcheck.files.contents import Contents
from graphcheck.rewriting.result import Rewrite
from graphcheck.rewriting.rewrite import rewrite
from graphcheck.verdicts.compare import compare
from tests.hostile.external import tensor

DATA = "weights/all.bin"


def test_a_model_without_external_data_is_not_searched_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def searched(*_: object) -> None:
        raise AssertionError("every node was looked at")

    monkeypatch.setattr(ir.external_data, "set_base_dir", searched)
    onnx.save(ir.to_proto(conv("kernel_shape = [4, 4], strides = [4, 4]", (8, 3, 4, 4))), tmp_path / "inline.onnx")
    assert model_.read(tmp_path / "inline.onnx").graph.initializers
    with pytest.raises(AssertionError):
        model_.read(saved(tmp_path / "beside"))


def saved(folder: Path) -> Path:
    """A patch embedding and a head behind it, their weights (one of each) in a data file; small ones inline."""
    folder.mkdir(parents=True)
    (folder / "weights").mkdir()
    model = ir.to_proto(conv("kernel_shape = [4, 4], strides = [4, 4]", (8, 3, 4, 4)))
    head = np.random.default_rng(1).normal(size=(1, 8, 1, 1)).astype(np.float32)
    model.graph.node.append(onnx.helper.make_node("Mul", [model.graph.output[0].name, "head"], ["scaled"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(head, "head"))
    model.graph.output[0].name = "scaled"
    path = folder / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location=DATA, size_threshold=0)
    return path


def to_matmul(path: Path) -> Rewrite:
    result = rewrite(model_.read(path), "matmul", check=lambda a, b: compare(a, b, graphs=False))
    assert result.changed, result.reason
    return result


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def ran(path: Path) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 12)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def assert_same(a: Path, b: Path) -> None:
    onnx.checker.check_model(str(b), full_check=True)
    assert float(np.abs(ran(a) - ran(b)).max()) < 1e-4
    assert compare(str(a), str(b), graphs=False).verdict.meets("proved")


def test_data_goes_along_to_another_folder(tmp_path: Path) -> None:
    path, out = saved(tmp_path / "a"), tmp_path / "b" / "new.onnx"
    out.parent.mkdir()
    assert main(["rewrite", str(path), "--to", "matmul", "-o", str(out)]) == 0
    assert files(out.parent) == ["new.onnx", "weights", "weights/all.bin"]
    assert (out.parent / DATA).read_bytes() == (path.parent / DATA).read_bytes()
    assert_same(path, out)
    stored = {t.name: t for t in onnx.load(out, load_external_data=False).graph.initializer}
    assert stored["head"].data_location == onnx.TensorProto.EXTERNAL
    assert [n for n, t in stored.items() if "weight" in n and t.data_location == onnx.TensorProto.DEFAULT]
    assert main(["rewrite", str(path), "--to", "matmul", "-o", str(out)]) == 0  # what is there already may stay


def test_a_model_in_memory_runs_with_its_data_on_disk(tmp_path: Path) -> None:
    path = saved(tmp_path / "a")
    told = compare(model_.read(path), to_matmul(path).model, graphs=False)
    assert told.verdict.meets("proved") and told.evidence["numeric"]["warnings"] == []
    assert [row["max_abs"] < 1e-4 for run in told.evidence["numeric"]["runs"] for row in run["outputs"]] == [True]


def test_data_stays_in_the_same_folder(tmp_path: Path) -> None:
    path = saved(tmp_path / "a")
    before = os.stat(path.parent / DATA)
    assert main(["rewrite", str(path), "--to", "matmul", "-o", str(path.parent / "new.onnx")]) == 0
    assert files(path.parent) == ["m.onnx", "new.onnx", "weights", "weights/all.bin"]
    assert os.stat(path.parent / DATA).st_mtime_ns == before.st_mtime_ns
    assert_same(path, path.parent / "new.onnx")


def test_rewriting_reads_no_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights that stay are never asked for by the writer: their bytes may even be gone by then."""
    path = saved(tmp_path / "a")
    result = to_matmul(path)

    def refuse(self: ir.ExternalTensor, *_: object) -> bytes:
        raise AssertionError(f"{self.name} was read")

    for method in ("tobytes", "numpy", "tofile"):
        monkeypatch.setattr(ir.ExternalTensor, method, refuse)
    (tmp_path / "b").mkdir()
    assert model_.write(result.model, tmp_path / "b" / "new.onnx") == [DATA]


def test_a_model_beyond_the_limit_gets_a_data_file(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                   monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    path, out = tmp_path / "m.onnx", tmp_path / "new.onnx"
    model_.write(conv("kernel_shape = [4, 4], strides = [4, 4]", (8, 3, 4, 4)), path)
    assert files(tmp_path) == ["m.onnx"]
    monkeypatch.setattr(external, "INLINE_LIMIT", 1024)
    (tmp_path / "new.onnx.data").write_text("another's")
    assert main(["rewrite", str(path), "--to", "matmul", "-o", str(out)]) == 0
    assert "exceed what one ONNX file can hold, so they are in new.onnx.1.data" in " ".join(
        capsys.readouterr().out.split()
    )
    assert files(tmp_path) == ["m.onnx", "new.onnx", "new.onnx.1.data", "new.onnx.data"]
    assert (tmp_path / "new.onnx.data").read_text() == "another's"
    assert_same(path, out)


def test_only_what_is_in_use_is_taken_along_on_request(tmp_path: Path) -> None:
    path, out = saved(tmp_path / "a"), tmp_path / "new.onnx"
    assert model_.write(to_matmul(path).model, out, external_data="used") == []
    assert_same(path, out)


@pytest.mark.parametrize("fails", ["serialize", "replace", "copy"])
def test_nothing_is_left_behind_on_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    result = to_matmul(saved(tmp_path / "a"))
    (tmp_path / "b").mkdir()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if fails == "serialize":
        monkeypatch.setattr(ir, "to_proto", fail)
    elif fails == "copy":
        monkeypatch.setattr("graphcheck.files.external.shutil.copyfile", fail)
    else:
        real = os.replace
        monkeypatch.setattr("os.replace", lambda a, b: fail() if str(b).endswith("new.onnx") else real(a, b))
    with pytest.raises(ModelError, match="No space left"):
        model_.write(result.model, tmp_path / "b" / "new.onnx")
    assert files(tmp_path / "b") == []


def test_what_is_in_the_way_is_left_alone(tmp_path: Path) -> None:
    result = to_matmul(saved(tmp_path / "a"))
    (tmp_path / "b" / "weights").mkdir(parents=True)
    (tmp_path / "b" / DATA).write_text("another's")
    with pytest.raises(ModelError, match="is in the way of the model's external data"):
        model_.write(result.model, tmp_path / "b" / "new.onnx")
    assert files(tmp_path / "b") == ["weights", "weights/all.bin"]


def test_a_link_is_a_clone_or_refused(tmp_path: Path) -> None:
    """onnx refuses hard and symbolic links, so that only file systems with copy-on-write clones can share data."""
    path, out = saved(tmp_path / "a"), tmp_path / "b" / "new.onnx"
    out.parent.mkdir()
    try:
        model_.write(to_matmul(path).model, out, external_data="link")
        assert_same(path, out)
    except ModelError as error:
        refused = error.cause
        assert "has no copy-on-write clones" in refused and "--external-data copy" in refused
        assert files(out.parent) == []
    with pytest.raises(UsageError, match="copy, link, used"):
        model_.write(ir.from_proto(onnx.load(path)), out, external_data="move")


def test_a_clone_is_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system clones (here a stand-in does), the result is as with a copy."""
    fcntl = pytest.importorskip("fcntl")

    def clone(to: int, request: int, source: int) -> int:
        assert request == 0x40049409  # FICLONE of linux/fs.h
        return os.write(to, os.pread(source, 1 << 20, 0))

    monkeypatch.setattr(fcntl, "ioctl", clone)
    path, out = saved(tmp_path / "a"), tmp_path / "b" / "new.onnx"
    out.parent.mkdir()
    assert main(["rewrite", str(path), "--to", "matmul", "-o", str(out), "--external-data", "link"]) == 0
    assert os.stat(out.parent / DATA).st_nlink == 1
    assert_same(path, out)


def test_an_unchanged_model_is_copied_with_its_data(tmp_path: Path) -> None:
    path, out = saved(tmp_path / "a"), tmp_path / "b" / "new.onnx"
    out.parent.mkdir()
    assert main(["rewrite", str(path), "--to", "conv", "-o", str(out)]) == 0
    assert out.read_bytes() == path.read_bytes()
    assert (out.parent / DATA).read_bytes() == (path.parent / DATA).read_bytes()


@pytest.mark.zoo
def test_a_model_of_more_than_two_gigabytes(tmp_path: Path) -> None:
    """Its inline weights are more than protobuf takes, so that the result has a data file."""
    model = conv("kernel_shape = [4, 4], strides = [4, 4]", (8, 3, 4, 4))
    big = ir.Value(name="big", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2**29 + 8]))
    big.const_value = ir.Tensor(np.zeros(2**29 + 8, np.float32), name="big")
    model.graph.register_initializer(big)
    total = ir.node("ReduceMax", [big], {"keepdims": 1}, name="max")
    total.outputs[0].name = "top"
    total.outputs[0].dtype, total.outputs[0].shape = ir.DataType.FLOAT, ir.Shape([1])
    model.graph.insert_before(model.graph[0], total)
    model.graph.outputs.append(total.outputs[0])
    path, out = tmp_path / "big.onnx", tmp_path / "new.onnx"
    assert model_.write(model, path) == ["big.onnx.data"]
    result = rewrite(model_.read(path), "matmul")
    assert all(check.ok for check in result.checks) and result.changed
    assert model_.write(result.model, out) == ["big.onnx.data"]
    onnx.checker.check_model(str(out), full_check=True)
    assert out.stat().st_size < 1 << 20
    assert float(np.abs(ran(path) - ran(out)).max()) < 1e-4


# -- large files -----------------------------------------------------------------------------------------------------


def large(folder: Path, megabytes: int) -> tuple[Path, Path]:
    """Two models that share a data file."""
    values = np.random.default_rng(0).normal(size=(megabytes * 256, 1024)).astype(np.float32)
    (folder / "w.bin").write_bytes(values.tobytes())
    paths = folder / "a.onnx", folder / "b.onnx"
    for path in paths:
        signature = f"(float[N,{len(values)}] x) => (float[N,1024] y)"
        text = f'<ir_version: 10, opset_import: ["": 21]> g {signature} {{ y = MatMul(x, w) }}'
        model = onnx.parser.parse_model(text)
        model.graph.initializer.append(tensor(values.shape, location="w.bin"))
        path.write_bytes(model.SerializeToString())
    return paths


def weight(model: ir.Model) -> np.ndarray:
    value = model.graph.initializers["w"].const_value
    assert value is not None
    return value.numpy()


def test_models_that_share_a_data_file_share_its_mapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (weight(model_.read(path)) for path in large(tmp_path, 1))
    assert a.__array_interface__["data"] == b.__array_interface__["data"] and not a.flags.writeable
    contents, looked = Contents(), []
    monkeypatch.setattr(contents, "_look", looked.extend)
    contents.ahead([a, b])
    assert len(looked) == 1
    (tmp_path / "w.bin").write_bytes(np.ones_like(a).tobytes() + b"more")  # another file under the same name
    assert float(weight(model_.read(tmp_path / "a.onnx")).max()) == 1.0


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_looking_at_constants_keeps_no_pages_of_a_mapped_file(tmp_path: Path) -> None:
    def held() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("RssFile"))

    array = weight(model_.read(large(tmp_path, 64)[0]))
    (tmp_path / "other").mkdir()
    other = weight(model_.read(large(tmp_path / "other", 64)[0]))
    before = held()
    assert array.reshape(-1)[::1024].sum() != 0 and held() - before > 48  # one of each page: all of them
    contents = Contents()
    contents.ahead([array, other])
    assert contents.of(array) is contents.of(other) and contents.finite(array)
    assert held() - before < 16 and not np.shares_memory(array, other)
    assert repr(contents.of(array)) == f"sha256:{hashlib.sha256(array.tobytes()).hexdigest()}"


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("size", [10, 300_000])
def test_what_is_not_finite_is_seen(value: float, size: int) -> None:
    array = np.zeros(size, np.float32)
    assert Contents().finite(array)
    array[-1] = value
    assert not Contents().finite(array)


@pytest.mark.slow
def test_the_benchmark_of_large_models_generates_measures_and_deletes(tmp_path: Path) -> None:
    script = Path(__file__).parent.parent / "benchmarks" / "large.py"
    command = [sys.executable, str(script), "--gigabytes", "0.01", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| ") and "peak" not in line]
    assert len(rows) == 7 and all(row[7].strip() == "0" for row in rows), done.stdout + done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines() if "data files written" in line] == ["0", "1"]
    assert list(tmp_path.iterdir()) == []
