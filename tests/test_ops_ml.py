"""The operators of ai.onnx.ml beside onnxruntime: scalers, linear models, forests; and two conversions of one forest."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from ops_support import assert_agrees, float64, run, values

from graphcheck.verdicts.compare import compare

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
COUNT = {"LinearClassifier": 2, "TreeEnsembleClassifier": 2}


def ml(
    op: str, attributes: dict[str, Any], shape: tuple[Any, ...] = (5, 3), constants: Any = (), opset: int = 3
) -> onnx.ModelProto:
    names = [f"c{i}" for i in range(len(constants))]
    if op == "TreeEnsembleRegressor":
        attributes = {"n_targets": 1, **attributes}
    outputs = [f"y{i}" for i in range(COUNT.get(op, 1))]
    node = helper.make_node(op, ["x", *names], outputs, domain="ai.onnx.ml", **attributes)
    kinds = [TensorProto.INT64, TensorProto.FLOAT] if len(outputs) == 2 else [TensorProto.FLOAT]
    sizes = [["n"], ["n", "m"]][-len(outputs) :]
    typed = [helper.make_tensor_value_info(*row) for row in zip(outputs, kinds, sizes, strict=True)]
    stored = [numpy_helper.from_array(c, n) for c, n in zip(constants, names, strict=True)]
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)], typed, stored)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def grown(
    seed: int = 0, trees: int = 3, depth: int = 3, targets: int = 1, kind: str = "target", mode: str = ""
) -> dict[str, Any]:
    """A forest of whole trees."""
    random = np.random.default_rng(seed)
    found: dict[str, list[Any]] = {}

    def put(**row: Any) -> None:
        for name, value in row.items():
            found.setdefault(name, []).append(value)

    for tree in range(trees):
        for at in range(2 ** (depth + 1) - 1):
            inner = at < 2**depth - 1
            put(
                nodes_treeids=tree,
                nodes_nodeids=at,
                nodes_modes=(mode or MODES[tree % 4]) if inner else "LEAF",
                nodes_truenodeids=2 * at + 1 if inner else 0,
                nodes_falsenodeids=2 * at + 2 if inner else 0,
                nodes_featureids=int(random.integers(3)),
                nodes_values=float(np.float32(random.standard_normal())),
            )
            if not inner:
                for target in range(targets):
                    put(**{f"{kind}_treeids": tree, f"{kind}_nodeids": at, f"{kind}_ids": target})
                    put(**{f"{kind}_weights": float(np.float32(random.standard_normal()))})
    return found


@pytest.mark.parametrize(
    ("op", "attributes", "constants"),
    [
        ("Scaler", {"offset": [0.5, 1.0, -2.0], "scale": [2.0, 0.3, 1.0]}, ()),
        ("Scaler", {"offset": [0.5], "scale": [2.0]}, ()),
        ("Normalizer", {"norm": "L1"}, ()),
        ("Normalizer", {"norm": "L2"}, ()),
        ("ArrayFeatureExtractor", {}, (np.asarray([2, 0, 2]),)),
        ("LinearRegressor", {"coefficients": [0.5, 1.0, -2.0], "intercepts": [0.25]}, ()),
        ("LinearRegressor", {"coefficients": [0.5, 1.0, -2.0, 1.0, 3.0, 2.0], "intercepts": [0.25, 1.0], "targets": 2}, ()),
        ("TreeEnsembleRegressor", grown(), ()),
        ("TreeEnsembleRegressor", {**grown(1, targets=2), "n_targets": 2, "base_values": [0.5, -1.0]}, ()),
        ("TreeEnsembleRegressor", {**grown(2), "aggregate_function": "AVERAGE", "base_values": [0.5]}, ()),
        ("TreeEnsembleRegressor", {**grown(3, mode="BRANCH_NEQ"), "n_targets": 1}, ()),
        ("TreeEnsembleRegressor", {**grown(4, trees=1, depth=0), "n_targets": 1}, ()),
    ],
)
def test_models_of_scikit_learn(op: str, attributes: dict[str, Any], constants: Any) -> None:
    proto = ml(op, attributes, constants=constants)
    assert_agrees(proto, {"x": values((5, 3))})
    assert_agrees(proto, {"x": values((5, 3), 1)}, normalize=False)


@pytest.mark.parametrize("post", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("op", ["LinearClassifier", "TreeEnsembleClassifier"])
def test_the_scores_of_a_classifier(op: str, post: str) -> None:
    attributes: dict[str, Any] = {"coefficients": [0.1 * n for n in range(9)], "intercepts": [0.5, 1, -1.0]}
    attributes["classlabels_ints"] = [3, 1, 4]
    if op == "TreeEnsembleClassifier":
        attributes = {"classlabels_int64s": [3, 1, 4], **grown(5, targets=3, kind="class")}
    proto, feeds = ml(op, {**attributes, "post_transform": post}), {"x": values((5, 3))}
    label, scores = float64(proto, feeds)
    wanted = run(proto, feeds)
    assert label.opaque and label.value.shape == wanted[0].shape and label.dtype == wanted[0].dtype
    assert np.abs(scores.value - wanted[1]).max() < 1e-5


def ensemble(
    seed: int, trees: int = 3, depth: int = 3, targets: int = 1, modes: int = 6, **attributes: Any
) -> onnx.ModelProto:
    """TreeEnsemble of opset 5: trees of random forms, with thresholds that inputs meet; ``modes``: how many of them."""
    random = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {name: [] for name in ("splits", "modes", "featureids", *_ENDS)}
    leaves: list[tuple[int, float]] = []

    def grow(left: int) -> tuple[int, int]:
        if not left or (left < depth and random.random() < 0.3):
            leaves.append((int(random.integers(targets)), float(random.integers(-8, 9)) / 4))
            return len(leaves) - 1, 1
        at = len(columns["splits"])
        row = {"splits": random.integers(-4, 5) / 2, "modes": random.integers(modes), "featureids": random.integers(3)}
        for name, column in columns.items():
            column.append(row[name].item() if name in row else 0)
        for side in ("true", "false"):
            columns[f"{side}nodeids"][at], columns[f"{side}leafs"][at] = grow(left - 1)
        return at, 0

    roots = [grow(depth)[0] for _ in range(trees)]
    stored = {name: columns.pop(name) for name in ("splits", "modes")}
    found = {f"nodes_{name}": column for name, column in columns.items()}
    found["nodes_splits"] = numpy_helper.from_array(np.asarray(stored["splits"], np.float32))
    found["nodes_modes"] = numpy_helper.from_array(np.asarray(stored["modes"], np.uint8))
    found |= {"leaf_targetids": [t for t, _ in leaves], "tree_roots": roots, "n_targets": targets}
    found["leaf_weights"] = numpy_helper.from_array(np.asarray([w for _, w in leaves], np.float32))
    return ml("TreeEnsemble", {**found, **attributes}, opset=5)


_ENDS = ("truenodeids", "falsenodeids", "trueleafs", "falseleafs")


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.sampled_from([1, 4, 6]),
    st.sampled_from([0, 1]),
)  # fmt: skip
def test_trees_of_opset_5(seed: int, trees: int, depth: int, targets: int, modes: int, sum_: int) -> None:
    proto = ensemble(seed, trees, depth, targets, modes, aggregate_function=sum_)
    random = np.random.default_rng([seed, 1])
    for feeds in ({"x": values((5, 3), seed)}, {"x": (random.integers(-5, 6, (5, 3)) / 2).astype(np.float32)}):
        assert_agrees(proto, feeds)
        (found,) = float64(proto, feeds)
        (told,) = ReferenceEvaluator(proto).run(None, feeds)
        assert not found.opaque and np.abs(found.value - told).max() < 1e-6


@pytest.mark.parametrize(
    ("name", "value"), [*(("post_transform", n) for n in (1, 2, 3, 4)), *(("aggregate_function", n) for n in (2, 3))]
)
def test_what_the_runtimes_do_not_agree_on_is_an_unknown_function(name: str, value: int) -> None:
    """onnx.reference leaves the transforms of opset 5 out, and takes an absent minimum for the largest float."""
    (found,) = float64(ensemble(1, targets=3, **{name: value}), {"x": values((5, 3))})
    assert found.opaque
    assert compare(ensemble(1, **{name: value}), ensemble(1), graphs=False).verdict != "proved"


def test_where_missing_values_go_is_assumed_not_to_matter() -> None:
    """A proof takes no NaN as an input, and says so where a forest has a branch for it; onnxruntime takes that branch."""
    plain = ensemble(3, trees=1, depth=3, modes=1)
    count = len(next(a for a in plain.graph.node[0].attribute if a.name == "nodes_featureids").ints)
    routed = ensemble(3, trees=1, depth=3, modes=1, nodes_missing_value_tracks_true=[1] * count)
    found = compare(plain, routed, graphs=False)
    assert found.verdict == "proved"
    assert "inputs and what is computed from them are finite" in str(found.evidence["proof"]["assumptions"])
    missing = {"x": np.full((5, 3), np.nan, np.float32)}
    assert (run(plain, missing)[0] != run(routed, missing)[0]).any()


@pytest.mark.parametrize("member", ["nodes_splits", "nodes_modes", "leaf_weights", "nodes_truenodeids"])
def test_a_damaged_tree_of_opset_5_is_not_proved(member: str) -> None:
    whole, damaged = ensemble(3, trees=1, depth=2, modes=4), ensemble(3, trees=1, depth=2, modes=4)
    attribute = next(a for a in damaged.graph.node[0].attribute if a.name == member)
    if member == "nodes_truenodeids":
        named = {a.name.removeprefix("nodes_"): a.ints for a in damaged.graph.node[0].attribute}
        for end in ("nodeids", "leafs"):
            one, two = named[f"true{end}"], named[f"false{end}"]
            one[0], two[0] = two[0], one[0]
    else:
        array = numpy_helper.to_array(attribute.t).copy()
        array[0] += 1
        attribute.t.CopyFrom(numpy_helper.from_array(array))
    found = compare(whole, damaged, graphs=False)
    assert found.verdict == "different", found.reason


def renumbered(attributes: dict[str, Any]) -> dict[str, Any]:
    """The same three trees, their nodes behind the root in another order and half of its questions asked the other way round."""
    other = {"BRANCH_LEQ": "BRANCH_GT", "BRANCH_GTE": "BRANCH_LT"}
    found = {name: list(column) for name, column in attributes.items()}
    for i, mode in enumerate(found["nodes_modes"]):
        if mode in other:
            found["nodes_modes"][i] = other[mode]
            yes, no = found["nodes_truenodeids"][i], found["nodes_falsenodeids"][i]
            found["nodes_truenodeids"][i], found["nodes_falsenodeids"][i] = no, yes
    for name in found:
        if name.startswith("nodes_"):
            whole = len(found[name]) // 3
            parts = [found[name][i * whole : (i + 1) * whole] for i in (1, 2, 0)]
            found[name] = [value for part in parts for value in (part[0], *part[:0:-1])]
    return found


def test_two_conversions_of_one_forest() -> None:
    one, other = grown(), renumbered(grown())
    a, b = (ml("TreeEnsembleRegressor", attributes, ("N", 3)) for attributes in (one, other))
    assert compare(a, b).verdict == "proved"
    root = {"nodes_values": 0.3, "nodes_modes": "BRANCH_EQ", "nodes_featureids": (other["nodes_featureids"][0] + 1) % 3}
    for name, value in root.items():
        damaged = {**other, name: [value, *other[name][1:]]}
        assert compare(a, ml("TreeEnsembleRegressor", damaged, ("N", 3))).verdict != "proved", name
    moved = {**other, "target_weights": [other["target_weights"][0] + 0.5, *other["target_weights"][1:]]}
    found = compare(a, ml("TreeEnsembleRegressor", moved, ("N", 3)))
    assert found.verdict == "different", found.reason


@pytest.mark.parametrize(("seed", "trees", "depth"), [(0, 3, 3), (2, 30, 5)])
def test_another_threshold_deep_in_a_forest_is_shown(seed: int, trees: int, depth: int) -> None:
    """One threshold is moved by 0.3: a few inputs in a thousand show it."""
    forest = grown(seed, trees, depth)
    at = forest["nodes_modes"].index("BRANCH_LT") + 2
    moved = {**forest, "nodes_values": [v + 0.3 * (i == at) for i, v in enumerate(forest["nodes_values"])]}
    found = compare(*(ml("TreeEnsembleRegressor", attributes, ("N", 3)) for attributes in (forest, moved)), graphs=False)
    assert found.verdict == "different", found.reason


def test_what_a_forest_leaves_out_is_an_unknown_function() -> None:
    proto = ml("TreeEnsembleRegressor", {**grown(), "post_transform": "PROBIT"}, ("N", 3))
    assert compare(proto, proto).verdict == "identical"
    other = ml("TreeEnsembleRegressor", {**renumbered(grown()), "post_transform": "PROBIT"}, ("N", 3))
    assert compare(proto, other).verdict == "undecided"


def test_a_tree_that_does_not_begin_with_its_root_is_an_unknown_function() -> None:
    other = {name: column[::-1] if name.startswith("nodes_") else column for name, column in grown().items()}
    found = compare(*(ml("TreeEnsembleRegressor", attributes, ("N", 3)) for attributes in (grown(), other)))
    assert found.verdict in ("undecided", "different")
