"""Blame: an operator is judged on the device's own inputs: honest rounding is never convicted, and of wrong ones each alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

import graphcheck
from graphcheck.blaming import explain
from graphcheck.blaming.judge import Walk
from graphcheck.blaming.record import Blame, Guilt
from graphcheck.cli import main
from graphcheck.errors import Exhausted
from graphcheck.precision.program import Step

Arrays = dict[str, np.ndarray]
Fault = Callable[[np.ndarray], np.ndarray]
HEAD = '<ir_version: 10, opset_import: ["": 20, "com.microsoft": 1]> net '
BLOCK = """(float[2,6,16] x) => (float[2,6,16] y) {
    n = LayerNormalization (x, g, b)
    h = MatMul (n, w1)
    hb = Add (h, b1)
    a = Gelu (hb)
    o = MatMul (a, w2)
    r = Add (x, o)
    s = Softmax <axis = -1> (r)
    t = Transpose <perm = [0, 2, 1]> (s)
    p = MatMul (r, t)
    q = MatMul (p, r)
    y = Relu (q)
}"""


def weights(seed: int = 0, **shapes: tuple[int, ...]) -> Arrays:
    random = np.random.default_rng(seed)
    return {name: (random.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32) for name, shape in shapes.items()}


BLOCK_WEIGHTS = weights(0, g=(16,), b=(16,), w1=(16, 32), b1=(32,), w2=(32, 16))


def parsed(text: str, constants: Mapping[str, np.ndarray] | None = None, dtype: Any = np.float32) -> onnx.ModelProto:
    """A model in ONNX text with its constants; the declared types become ``dtype``."""
    model = onnx.parser.parse_model(HEAD + (text if dtype is np.float32 else text.replace("float[", "float16[")))
    model.graph.initializer.extend(numpy_helper.from_array(x.astype(dtype), n) for n, x in (constants or {}).items())
    return model


class Device:
    """Runs a model node by node in float64 and rounds each result to a type; ``faults`` change the result of a tensor."""

    def __init__(self, model: onnx.ModelProto, dtype: Any = np.float32, faults: Mapping[str, Fault] | None = None) -> None:
        self.model, self.dtype, self.faults = model, np.dtype(dtype), dict(faults or {})

    def run(self, feeds: Arrays, sums: Any = np.float32) -> Arrays:
        """Every tensor by name, as the device has it."""
        known = {i.name: numpy_helper.to_array(i) for i in self.model.graph.initializer} | feeds
        dumped = dict(feeds)
        for node in self.model.graph.node:
            given = {n: known[n].astype(sums) if known[n].dtype.kind == "f" else known[n] for n in node.input if n}
            types = {n: onnx.helper.np_dtype_to_tensor_dtype(x.dtype) for n, x in given.items()}
            read = [onnx.helper.make_tensor_value_info(n, types[n], x.shape) for n, x in given.items()]
            made_of = [onnx.helper.make_empty_tensor_value_info(n) for n in node.output if n]
            graph = onnx.helper.make_graph([node], "one", read, made_of)
            one = onnx.helper.make_model(graph, opset_imports=self.model.opset_import, ir_version=10)
            with np.errstate(all="ignore"):
                made = ReferenceEvaluator(one).run(None, given)
            for name, x in zip([n for n in node.output if n], made, strict=True):
                x = np.asarray(x)
                x = self.faults[name](x) if name in self.faults else x
                known[name] = dumped[name] = x.astype(self.dtype) if x.dtype.kind == "f" else x
        return dumped


def block(seed: int = 1, scale: float = 1.0, dtype: Any = np.float32) -> tuple[onnx.ModelProto, Arrays]:
    x = np.random.default_rng(seed).standard_normal((2, 6, 16)) * scale
    return parsed(BLOCK, BLOCK_WEIGHTS, dtype), {"x": x.astype(dtype)}


def convicted(result: Blame) -> list[str]:
    return [row["output"] for row in result.evidence["convicted"]]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("sums", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e-3])
def test_an_honest_device_is_clean(dtype: Any, sums: Any, scale: float) -> None:
    model, feeds = block(scale=scale, dtype=dtype)
    result = graphcheck.blame(model, Device(model, dtype).run(feeds, sums))
    assert result.verdict is Guilt.CLEAN, result.reason
    assert result.evidence["checked"] >= 9 and convicted(result) == []
    assert result.evidence["precision"] == np.dtype(dtype).name


def test_drift_accuses_nobody() -> None:
    """The first tensor is off by percents, and all that follows from it is right."""
    model, feeds = block()
    dumped = Device(model).run({"x": feeds["x"] * np.float32(1.05)}) | {"x": feeds["x"] * np.float32(1.05)}
    assert graphcheck.blame(model, dumped).verdict is Guilt.CLEAN
    honest = Device(model, np.float16).run({"x": feeds["x"]})
    result = graphcheck.blame(model, honest)
    assert result.verdict is Guilt.CLEAN and max(row["drift"] for row in result.evidence["curve"]) > 1e-4
    local = [row["local"] for row in result.evidence["curve"]]
    assert max(local) <= max(row["drift"] for row in result.evidence["curve"])


FAULTS: dict[str, tuple[str, Fault]] = {
    "a Gelu": ("a", lambda x: np.where(np.abs(x) > 1, x * 1.01, x)),
    "one element of a MatMul": ("h", lambda x: x + np.eye(6, 32, dtype=np.float32) * 1e-2),
    "a bias that is missing": ("hb", lambda x: x - BLOCK_WEIGHTS["b1"]),
    "an axis": ("s", lambda x: x.transpose(0, 2, 1).reshape(x.shape)),
    "a scale": ("n", lambda x: x * np.float32(1.01)),
    "a tile of zeros": ("p", lambda x: np.concatenate([x[:, :4], 0 * x[:, 4:]], axis=1)),
    "not a number": ("o", lambda x: np.where(np.arange(16) == 3, np.nan, x)),
    "infinite": ("q", lambda x: np.where(np.arange(16) == 3, np.inf, x)),
    "the order": ("t", lambda x: x[:, ::-1]),
    "no Relu": ("y", lambda x: x - 0.1),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_faulty_tensor_alone_is_convicted(fault: str, dtype: Any) -> None:
    name, change = FAULTS[fault]
    model, feeds = block(dtype=dtype)
    result = graphcheck.blame(model, Device(model, dtype, {name: change}).run(feeds))
    assert result.verdict is Guilt.CONVICTED and convicted(result) == [name]
    (row,) = result.evidence["convicted"]
    assert row["ratio"] > 1 and row["region"] == [row["node"]] and f"{name!r}" in result.reason


def test_convicted_in_the_order_of_the_graph() -> None:
    model, feeds = block()
    result = graphcheck.blame(model, Device(model, faults={"y": np.negative, "h": np.negative}).run(feeds))
    assert convicted(result) == ["h", "y"] and "'h'" in result.reason and "2 of 11 tensors are convicted" in result.reason


@pytest.mark.parametrize("broken", ["h", "y", None])
@pytest.mark.parametrize("error", [Exhausted("the time limit of 5 s was reached"), MemoryError()])
def test_a_limit_keeps_what_was_judged_before_it(
    broken: str | None, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the sixth step: what was convicted before it stays so, and what was clean is not called clean as a whole."""
    model, feeds = block()
    dumped = Device(model, faults={broken: np.negative} if broken else {}).run(feeds)
    step = Walk._step

    def limited(walk: Walk, one: Step) -> None:
        if len(walk.rows) == 5:
            raise error
        step(walk, one)

    monkeypatch.setattr(Walk, "_step", limited)
    result = graphcheck.blame(model, dumped)
    said = str(error) or "the memory limit was reached"
    assert result.evidence["checked"] == 5 and {row["reason"] for row in result.evidence["skipped"]} == {said}
    assert len(result.evidence["skipped"]) == 6 and said in result.reason
    if broken == "h":
        assert result.verdict is Guilt.CONVICTED and convicted(result) == ["h"]
    else:
        assert result.verdict is Guilt.UNDECIDED and "6 tensors were not judged" in result.reason


def test_a_limit_that_ends_the_explanation_keeps_the_conviction(monkeypatch: pytest.MonkeyPatch) -> None:
    model, feeds = block()
    monkeypatch.setattr(explain, "explained", Mock(side_effect=Exhausted("the time limit of 5 s was reached")))
    result = graphcheck.blame(model, Device(model, faults={"h": np.negative}).run(feeds))
    assert result.verdict is Guilt.CONVICTED and result.evidence["convicted"][0]["looks_like"] is None


def test_a_region_between_dumped_tensors_is_judged_as_a_whole() -> None:
    model, feeds = block()
    device = Device(model, faults={"a": lambda x: x * np.float32(1.01)})
    some = {name: x for name, x in device.run(feeds).items() if name in ("x", "n", "o", "s", "p", "y")}
    (row,) = graphcheck.blame(model, some).evidence["convicted"]
    assert (row["output"], row["op_type"], row["reads"]) == ("o", "MatMul", ["n"]) and len(row["region"]) == 4
    assert row["dump_next"] == ["hb"]  # two nodes on either side
    (row,) = graphcheck.blame(model, some | {"hb": device.run(feeds)["hb"]}).evidence["convicted"]
    assert row["reads"] == ["hb"] and len(row["region"]) == 2


@pytest.mark.parametrize("keep", ["y", "r", "o"])
def test_honest_regions_are_clean(keep: str) -> None:
    for dtype in (np.float32, np.float16):
        model, feeds = block(dtype=dtype)
        dumped = {name: x for name, x in Device(model, dtype).run(feeds).items() if name in ("x", keep)}
        result = graphcheck.blame(model, dumped)
        assert convicted(result) == [] and result.evidence["unmatched"] == []


def test_numbers_kept_wider_than_they_were_dumped_are_no_fault() -> None:
    """A device that dumps float16 and goes on with float32."""
    model, feeds = block(dtype=np.float16)
    wide = Device(model, np.float32).run(feeds)
    result = graphcheck.blame(model, {name: x.astype(np.float16) for name, x in wide.items()})
    assert result.verdict is Guilt.CLEAN


def test_what_cannot_be_judged_is_skipped_with_the_reason() -> None:
    text = """(float[4,4] x, float[4,4] other) => (float[4,4] y) {
        u = com.microsoft.NobodyKnows (x)
        v = Relu (u)
        w = Add (v, other)
        y = Relu (w)
    }"""
    model = parsed(text)
    x = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    dumped = {"x": x, "u": x, "v": np.maximum(x, 0), "w": x, "y": np.maximum(x, 0)}
    result = graphcheck.blame(model, dumped)
    assert result.verdict is Guilt.CLEAN and result.evidence["checked"] == 2
    reasons = {row["output"]: row["reason"] for row in result.evidence["skipped"]}
    assert set(reasons) == {"u", "w"} and reasons["w"] == "its input 'other' is neither dumped nor computed"
    assert result.reason.endswith("; 2 not judged")
    more = graphcheck.blame(model, dumped | {"z": x, "t": x})
    assert more.reason.endswith("; 2 not judged; 2 of the dump without a place in the model")
    nothing = graphcheck.blame(model, {"u": x})
    assert nothing.verdict is Guilt.UNDECIDED and nothing.exit_code() == 3 and "'u'" in nothing.reason


def test_places_that_depend_on_values_are_taken_from_the_dump() -> None:
    text = """(float[3,8] x) => (float[3,2] y) {
        k = Constant <value_ints = [2]> ()
        v, i = TopK (x, k)
        y = GatherElements <axis = 1> (x, i)
    }"""
    x = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    dumped = Device(parsed(text)).run({"x": x})
    assert graphcheck.blame(parsed(text), dumped).verdict is Guilt.CLEAN
    result = graphcheck.blame(parsed(text), dumped | {"y": dumped["y"][:, ::-1]})
    assert convicted(result) == ["y"]


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_a_recurrence_is_judged_step_by_step(op: str, gates: int, direction: str) -> None:
    ways = 2 if direction == "bidirectional" else 1
    text = f"""(float[12,2,5] x) => (float[12,{ways},2,6] y, float[{ways},2,6] h) {{
        y, h = {op} <hidden_size = 6, direction = "{direction}"> (x, w, r)
    }}"""
    model = parsed(text, weights(0, w=(ways, 6 * gates, 5), r=(ways, 6 * gates, 6)))
    x = np.random.default_rng(0).standard_normal((12, 2, 5)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y, h = session.run(None, {"x": x})
    dumped = {"x": x, "y": y, "h": h}
    result = graphcheck.blame(model, dumped)
    assert result.verdict is Guilt.CLEAN and result.evidence["checked"] == 2
    wrong = y.copy()
    wrong[5, 0, 1, 2] += 1e-3
    rows = graphcheck.blame(model, dumped | {"y": wrong}).evidence["convicted"]
    assert [row["output"] for row in rows] == ["y"] and rows[0]["where"][0] in (4, 5, 6)


def test_a_region_that_is_too_large_says_what_to_dump_as_well() -> None:
    lines = "".join(f"h{i + 1} = MatMul (h{i}, w)\n" for i in range(8))
    model = parsed(f"(float[2,64] h0) => (float[2,64] y) {{ {lines} y = Exp (h8) }}", weights(0, w=(64, 64)))
    dumped = Device(model).run({"h0": np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)})
    result = graphcheck.blame(model, {k: dumped[k] for k in ("h0", "y")}, precision="float16", accumulate="float16")
    assert result.verdict is Guilt.UNDECIDED and result.exit_code() == 3
    (row,) = result.evidence["skipped"]
    assert "over 9 nodes since the last tensor that was dumped: dump 'h4' as well" in row["reason"]


def test_no_numbers_are_seen_by_isnan() -> None:
    text = """(float[2,8] x) => (float[2,8] y) {
        s = Softmax (x)
        n = IsNaN (s)
        zero = Constant <value_float = 0.0> ()
        y = Where (n, zero, s)
    }"""
    x = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
    x[1] = -np.inf  # a row that is masked as a whole
    dumped = Device(parsed(text)).run({"x": x})
    assert dumped["n"][1].all()
    for kept in (dumped, {name: dumped[name] for name in ("x", "s", "y")}, {name: dumped[name] for name in ("x", "y")}):
        assert convicted(graphcheck.blame(parsed(text), kept)) == []
    wrong = Device(parsed(text), faults={"n": np.logical_not}).run({"x": x})
    assert convicted(graphcheck.blame(parsed(text), wrong)) == ["n"]


def test_whole_numbers_are_judged_wherever_they_are_from() -> None:
    text = """(int64[4] i, float[8,2] x) => (float[4,2] y) {
        one = Constant <value_ints = [1]> ()
        j = Add (i, one)
        y = Gather (x, j)
    }"""
    x = np.random.default_rng(0).standard_normal((8, 2)).astype(np.float32)
    feeds = {"i": np.array([0, 3, 2, 5]), "x": x}
    assert graphcheck.blame(parsed(text), Device(parsed(text)).run(feeds)).evidence["checked"] == 2
    wrong = Device(parsed(text), faults={"j": lambda j: j + 1}).run(feeds)
    assert convicted(graphcheck.blame(parsed(text), wrong)) == ["j"]


def test_masks_and_overflow_are_no_fault() -> None:
    text = """(float[2,8] x, float[2,8] mask) => (float[2,8] y) {
        m = Add (x, mask)
        s = Softmax (m)
        e = Exp (x)
        y = Mul (e, s)
    }"""
    x = np.linspace(-20, 89, 16).reshape(2, 8).astype(np.float32)
    mask = np.where(np.arange(8) % 3 == 2, np.float32(-3.4e38), np.float32(0)) * np.ones((2, 1), np.float32)
    for hidden in (mask, np.where(mask < 0, -np.inf, 0).astype(np.float32)):
        dumped = Device(parsed(text)).run({"x": x, "mask": hidden})
        assert np.isinf(dumped["e"]).any()
        assert graphcheck.blame(parsed(text), dumped).verdict is Guilt.CLEAN
        faulty = Device(parsed(text), faults={"s": lambda s: s + np.float32(1e-3)})
        assert convicted(graphcheck.blame(parsed(text), faulty.run({"x": x, "mask": hidden}))) == ["s"]


def test_quantized_tensors_are_judged_in_steps() -> None:
    text = """(float[4,16] x) => (float[4,16] y) {
        q = QuantizeLinear (x, scale, zero)
        y = DequantizeLinear (q, scale, zero)
    }"""
    model = parsed(text, {"scale": np.asarray(0.05)})
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(3, np.int8), "zero"))
    x = np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32) * 4
    x[0, 0] = 0.125  # a tie: 2.5 steps
    dumped = Device(model).run({"x": x})
    assert graphcheck.blame(model, dumped).verdict is Guilt.CLEAN
    other = dumped | {"q": dumped["q"].copy()}
    other["q"][0, 0] = 6 if dumped["q"][0, 0] == 5 else 5
    assert convicted(graphcheck.blame(model, other | {"y": (other["q"].astype(np.float32) - 3) * np.float32(0.05)})) == []
    cut = dumped | {"q": np.trunc(np.clip(x / 0.05 + 3, -128, 127)).astype(np.int8)}
    assert convicted(graphcheck.blame(model, cut))[0] == "q"


def save(folder: Path, model: onnx.ModelProto, arrays: Arrays) -> list[str]:
    onnx.save(model, folder / "m.onnx")
    np.savez(folder / "dump.npz", **arrays)
    return ["blame", str(folder / "m.onnx"), "--tensors", str(folder / "dump.npz")]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, feeds = block()
    command = save(tmp_path, model, Device(model).run(feeds))
    assert main(command) == 0 and capsys.readouterr().out.startswith("✓ clean: all 11 tensors")
    command = save(tmp_path, model, Device(model, faults={"a": lambda x: x * np.float32(1.01)}).run(feeds))
    assert main([*command, "--json", str(tmp_path / "r.json"), "--reduce", str(tmp_path / "cut")]) == 1
    out = capsys.readouterr().out
    assert out.startswith("✗ convicted: Gelu(a) is wrong: its output 'a' is ") and "off by" in out
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["schema"] == "graphcheck/blame/1" and told["verdict"] == "convicted" and told["checked"] == 11
    assert {"node", "op_type", "output", "deviation", "bound", "ratio", "where"} <= set(told["convicted"][0])
    page = (Path(__file__).parent.parent / "docs" / "reference" / "json.md").read_text(encoding="utf-8")
    section = page.partition("\n## blame\n")[2].partition("\n## ")[0]
    assert [key for key in (*told, *told["convicted"][0]) if f"`{key}`" not in section and key not in section] == []
    (piece,) = told["reduced"]
    with np.load(Path(piece["folder"]) / "inputs.npz") as given, np.load(Path(piece["folder"]) / "dumped.npz") as got:
        small = onnx.load(Path(piece["folder"]) / "model.onnx")
        onnx.checker.check_model(small)
        assert [node.op_type for node in small.graph.node] == ["Gelu"] and not small.graph.initializer
        (right,) = ReferenceEvaluator(small).run(None, dict(given))
        assert np.abs(np.asarray(right) - got["a"]).max() > 1e-3
    del feeds["x"]
    assert main(save(tmp_path, model, {"y": np.zeros((2, 6, 16), np.float32)})) == 3


TROUBLE = [
    (["--tensors", "none.npz"], "none.npz"),
    (["--tensors", "text.npz"], "text.npz"),
    (["--tensors", "other.npz"], "no tensor of the model"),
    (["--tensors", "dump.npz", "--precision", "float8"], "float8"),
    (["--tensors", "dump.npz", "--inputs", "none.npz"], "none.npz"),
]


@pytest.mark.parametrize(("options", "said"), TROUBLE)
def test_trouble_is_one_sentence(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, feeds = block()
    save(tmp_path, model, Device(model).run(feeds))
    (tmp_path / "text.npz").write_text("no dump")
    np.savez(tmp_path / "other.npz", nobody=np.zeros(3))
    assert main(["blame", "m.onnx", *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and said in err and "Traceback" not in err
