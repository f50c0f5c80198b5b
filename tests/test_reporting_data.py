"""Small hand-made results for the report's tests, and what makes them large or hostile."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]

HOSTILE = (
    "</script><script>alert('x')</script>\"'><img src=x onerror=alert(1)>&amp;\n\r\0\u2028\ud800{{ 7*7 }}{% raw %}"
)
LONG = "x" * 1_000_000


def node(ident: int, op: str, inputs: list[str], outputs: list[str], name: str = "", module: str | None = None) -> Json:
    return {
        "id": ident,
        "name": name or f"{op}_{ident}",
        "op_type": op,
        "domain": "",
        "inputs": inputs,
        "outputs": outputs,
        "attributes": {"axis": "1"},
        "module": module,
    }


def graph(nodes: list[Json], inputs: list[str], outputs: list[str]) -> Json:
    names = {n for x in nodes for n in (*x["inputs"], *x["outputs"])} | set(inputs) | set(outputs)
    tensors = {n: {"dtype": "FLOAT", "shape": [1, "N", None, 8], "constant": n.startswith("w")} for n in sorted(names)}
    return {"nodes": nodes, "tensors": tensors, "inputs": inputs, "outputs": outputs}


def conv_graph() -> Json:
    return graph(
        [node(0, "Conv", ["x", "w0"], ["c"]), node(1, "Reshape", ["c", "w1"], ["r"]), node(2, "Relu", ["r"], ["y"])],
        ["x"],
        ["y"],
    )


def matmul_graph() -> Json:
    nodes = [
        node(0, "Reshape", ["x", "w0"], ["s"]),
        node(1, "Transpose", ["s"], ["t"]),
        node(2, "MatMul", ["t", "w2"], ["m"]),
        node(3, "Relu", ["m"], ["y"]),
    ]
    return graph(nodes, ["x"], ["y"])


def transformer(blocks: int, extra: int | None = None) -> Json:
    """A chain of ``blocks`` residual blocks of 9 nodes; block ``extra`` has one more Identity."""
    nodes: list[Json] = []
    last = "x"

    def add(op: str, inputs: list[str], module: str) -> str:
        out = f"t{len(nodes)}"
        nodes.append(node(len(nodes), op, inputs, [out], f"/{module.replace('.', '/')}/{op}_{len(nodes)}", module))
        return out

    for b in range(blocks):
        module = f"vit.encoder.layer.{b}"
        normed = add("LayerNormalization", [last, "w0", "w1"], module)
        q, k, v = (add("MatMul", [normed, f"w{i}"], f"{module}.attention") for i in range(3))
        scores = add("Softmax", [add("MatMul", [q, k], f"{module}.attention")], f"{module}.attention")
        mixed = add("MatMul", [scores, v], f"{module}.attention")
        if b == extra:
            mixed = add("Neg", [mixed], module)
        last = add("Add", [last, add("Gelu", [mixed], f"{module}.mlp")], module)
    nodes.append(node(len(nodes), "Identity", [last], ["y"], "/out"))
    return graph(nodes, ["x"], ["y"])


def summary(path: str = "a.onnx") -> Json:
    tensor = {"name": "x", "dtype": "FLOAT", "shape": [1, 3, "H", None]}
    return {
        "path": path,
        "sha256": "0" * 64,
        "bytes": 12_345,
        "ir_version": 10,
        "producer": "pytorch 2",
        "opsets": {"": 18},
        "inputs": [tensor],
        "outputs": [tensor | {"name": "y"}],
        "ops": {"Conv": 1, "Relu": 1},
        "nodes": 3,
        "parameters": 24_576,
        "parameter_bytes": 98_304,
        "largest_rank": 6,
    }


def output() -> Json:
    return {
        "a": "y",
        "b": "y",
        "dtype": "float32",
        "shape": [1, 8],
        "max_abs": 1e-6,
        "max_rel": 1e-5,
        "max_ulp": 12,
        "mean_abs": 1e-8,
        "p50_abs": 0.0,
        "p99_abs": 1e-7,
        "cosine": 1.0,
        "nan_a": 0,
        "nan_b": 0,
        "inf_a": 0,
        "inf_b": 0,
        "scale_ulp": 3.5,
        "min_rtol": 1e-6,
        "min_atol": 1e-6,
        "spread_units": None,
        "histogram": [[0.1, 5], [1.0, 20], [10.0, 1]],
        "heatmap": {"values": [[0.0, 1e-6], [2e-6, None]], "over": "2 rows of 2"},
        "scatter": [[0.0, 0.0], [1.0, 1.0]],
    }


def compare(a: Json | None = None, b: Json | None = None, alignment: list[Any] | None = None, **changes: Any) -> Json:
    a, b = a or conv_graph(), b or matmul_graph()
    run = {
        "side_note": "optimizations off",
        "providers": ["CPUExecutionProvider"],
        "inputs": {"seed": 1, "scale": 1.0, "distribution": "normal", "shapes": {"x": [1, 8]}},
        "outputs": [output()],
    }
    pair = {
        "a": "x",
        "b": "x",
        "paired_by": "name",
        "a_dtype": "float32",
        "b_dtype": "float32",
        "a_shape": [1, 8],
        "b_shape": ["N", 8],
    }
    result: Json = {
        "schema": "graphcheck/compare/1",
        "verdict": "proved",
        "reason": "Every output of B is an output of A.",
        "a": summary(),
        "b": summary("b.onnx"),
        "interface": {
            "inputs": [pair],
            "outputs": [pair | {"a": "y", "b": "y"}],
            "notes": ["N is 1"],
            "mismatches": [],
        },
        "structure": {
            "identical": False,
            "matched_nodes": 1,
            "nodes_a": 3,
            "nodes_b": 4,
            "ops": {"Conv": [1, 0], "Relu": [1, 1], "MatMul": [0, 1]},
            "only_a": [{"node": "Conv_0", "op_type": "Conv", "outputs": ["c"]}],
            "only_b": [{"node": "MatMul_2", "op_type": "MatMul", "outputs": ["m"]}],
            "constants": {"equal": 1, "only_a": ["w0"], "only_b": []},
            "mapping": [],
        },
        "numeric": {
            "runs": [run],
            "warnings": ["output y is constant"],
            "time_a_ms": 1.5,
            "time_b_ms": {"median": 2.5, "min": 2.0, "max": 3.0},
            "curve": [
                {"a": "c", "b": "m", "deviation": 1e-7, "spread": 1e-6},
                {"a": "y", "b": "y", "deviation": 3e-5, "spread": 2e-6},
            ],
        },
        "proof": {
            "tier": "windows",
            "primes": [4194301, 4194287],
            "seed": 3,
            "error_probability": 2e-13,
            "assumptions": ["Erf is an unknown function"],
            "shapes": [{"x": [1, 8]}],
            "counts": {"congruence": 12, "windows": 2},
            "constants": [{"name": "w0", "ulps": 1}],
            "a new key": {"deep": [1, 2]},
        },
        "divergence": None,
        "witness": None,
        "graphs": {"a": a, "b": b},
        "alignment": [[2, 3, "same"]] if alignment is None else alignment,
        "seed": 3,
        "versions": {"onnx": "1.23.2"},
        "command": "graphcheck compare a.onnx b.onnx",
        "timings": {"read": 0.1},
    }
    return result | changes


def mutant() -> Json:
    """A pair of 6-block graphs that part in block 3."""
    a, b = transformer(6), transformer(6, extra=3)
    first = next(n["id"] for n in b["nodes"] if n["op_type"] == "Neg")
    alignment = [[n, n, "same"] for n in range(first)]
    divergence = {
        "a": None,
        "b": {"tensor": b["nodes"][first]["outputs"][0], "node": b["nodes"][first]["name"], "op_type": "Neg"},
    }
    witness = {
        "path": "w.npz",
        "seed": 1,
        "kind": "random",
        "replay": "graphcheck compare a b --inputs w.npz",
        "max_abs": 0.5,
        "bound": 1e-12,
        "spread": 1e-6,
    }
    return compare(
        a,
        b,
        alignment,
        verdict="different",
        reason="On the saved input they differ.",
        divergence=divergence,
        witness=witness,
        proof=None,
    )


def site(pattern: str | None = "b c (h p1) (w p2) -> b (h w) (p1 p2 c)") -> Json:
    return {
        "form": "matmul",
        "pattern": pattern,
        "kernel_shape": [4, 4],
        "strides": [4, 4],
        "dilations": [1, 1],
        "pads": [0, 0, 0, 0],
        "groups": 1,
        "in_channels": 3,
        "out_channels": 8,
        "layout": "NCHW",
        "nodes": ["Conv_0"],
        "input": "x",
        "output": "y",
        "weights": {"order": "p1 p2 c", "filters": [[[[0.5, -1.0], [0.25, 0.0]]] * 3]},
    }


def analyze() -> Json:
    return {
        "schema": "graphcheck/analyze/1",
        "model": summary(),
        "patch_embeddings": [site()],
        "refusals": [{"reason": "a LayerNormalization stands between", "node": "Relu_2"}],
        "graph": conv_graph(),
    }


def rewrite(to: str = "conv") -> Json:
    before = [
        {"tensor": "m", "rank": 4, "shape": [1, 3, 8, 8]},
        {"tensor": "s", "rank": 6, "shape": [1, 3, 2, 4, 2, 4]},
    ]
    a, b = matmul_graph(), conv_graph()
    a["tensors"]["s"]["shape"] = before[1]["shape"]
    return {
        "schema": "graphcheck/rewrite/1",
        "model": summary(),
        "to": to,
        "sites": [{"site": site(), "from": "matmul", "to": to, "before": before, "after": [before[0] | {"tensor": "c"}]}],
        "refusals": [{"reason": "its output is used elsewhere", "node": "Relu_3"}],
        "graphs": {"a": a, "b": b},
        "alignment": [[3, 2, "same"]],
        "verdict": "proved",
        "reason": "Every check passed.",
        "checks": [
            {"name": "onnx.checker", "ok": True, "detail": "full"},
            {"name": "same window map", "ok": True, "detail": ""},
        ],
        "timings": {"find": 0.1},
        "moved": [{"input": "x", "output": "y", "before": [["x", 6]], "after": [["x", 4]]}],
        "measured": [
            {
                "site": "/proj",
                "forms": [
                    {"form": f, "median": t, "lower": t / 2, "upper": t * 2}
                    for f, t in (("conv", 1.0), ("matmul", 2.0))
                ],
                "chosen": "conv",
            }
        ],
        "times_ms": {"before": {"median": 2.0, "min": 1.0, "max": 3.0}, "after": 1.0},
        "output": "out.onnx",
    }


def demo(verdict: str = "proved") -> Json:
    names = ["t-conv", "t-matmul", "t-unfold"]
    graphs = dict(zip(names, (conv_graph(), matmul_graph(), matmul_graph()), strict=True))
    variants = [
        {
            "name": n,
            "form": n,
            "exporter": "dynamo",
            "batch": "static",
            "path": f"{n}.onnx",
            "analyze": analyze() | {"graph": graphs[n]},
            "rewrite_conv": rewrite(),
            "rewrite_matmul": None,
            "time_ms": {"median": 1.0 + i, "min": 0.5, "max": 3.0},
        }
        for i, n in enumerate(names)
    ]
    pairs = []
    for i, x in enumerate(names):
        for y in names[i + 1 :]:
            result = compare(verdict=verdict, alignment=[])
            del result["graphs"]
            pairs.append({"a": x, "b": y, "compare": result})
    family = {
        "name": "torch",
        "description": "One projection, three forms.",
        "variants": variants,
        "pairs": pairs,
        "failures": [{"variant": "u", "exporter": "torchscript", "error": "not supported"}],
    }
    return {
        "schema": "graphcheck/demo/1",
        "families": [family],
        "left_out": ["the keras family: its extra is not installed"],
        "seed": 0,
        "versions": {"onnx": "1"},
        "timings": {"all": 3.0},
    }


def blame() -> Json:
    """A device whose first product is wrong; the second tensor is skipped."""
    drawn = conv_graph()
    first, *others = drawn["nodes"]
    row = {
        "node": first["name"], "op_type": first["op_type"], "output": first["outputs"][0], "deviation": 0.5, "bound": 1e-3,
        "ratio": 500.0, "where": [0, 1], "got": 1.5, "expected": 1.0, "elements": 3, "of": 12, "scale": 2.0,
        "region": [first["name"]], "reads": ["x"], "looks_like": {"kind": "epsilon", "name": HOSTILE, "ratio": 0.5},
        "dump_next": [], "picture": {"heatmap": {"values": [[0.0, 0.5], [0.0, 0.1]], "over": "rows"}, "scatter": [[1.5, 1.0]]},
    }  # fmt: skip
    curve = [
        {"tensor": node["outputs"][0], "node": node["name"], "drift": 0.1, "local": 0.25 / 10**at, "bound": 5e-4}
        for at, node in enumerate(drawn["nodes"])
    ]
    return {
        "schema": "graphcheck/blame/1", "verdict": "convicted", "reason": "an operator is wrong", "model": "net.onnx",
        "tensors": "dump.npz", "convicted": [row], "suspect": [row | {"looks_like": None, "picture": None}], "checked": 2,
        "skipped": [{"node": n["name"], "op_type": n["op_type"], "output": "y", "reason": HOSTILE} for n in others[:1]],
        "unmatched": ["z"], "precision": "float16", "accumulate": "float32", "guessed": ["precision"], "curve": curve,
        "notes": [], "reduced": None, "seconds": 0.1, "command": "graphcheck blame net.onnx", "graph": drawn,
    }  # fmt: skip


SAMPLES: dict[str, Callable[[], Json]] = {
    "blame": blame,
    "compare": compare,
    "mutant": mutant,
    "analyze": analyze,
    "rewrite": rewrite,
    "demo": demo,
}

_WORDS = {
    "schema",
    "verdict",
    "op_type",
    "form",
    "layout",
    "pattern",
    "order",
    "tier",
    "to",
    "status",
    "paired_by",
    "a_dtype",
    "b_dtype",
    "dtype",
}


def renamed(result: Json, suffix: str) -> Json:
    """A deep copy with ``suffix`` behind every text that a model or a user chooses, wiring kept."""

    def walk(value: Any, key: str = "") -> Any:
        if isinstance(value, str):
            return value if key in _WORDS or key == "alignment" else value + suffix
        if isinstance(value, list):
            return [walk(v, key) for v in value]
        if isinstance(value, dict):
            return {
                (
                    k + suffix
                    if key in ("tensors", "ops", "attributes", "versions", "opsets", "shapes", "op names")
                    else k
                ): walk(v, k)
                for k, v in value.items()
            }
        return value

    out: Json = walk(copy.deepcopy(result))
    return out
