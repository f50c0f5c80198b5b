"""blame attacked in small: an honest device is never convicted, however it sums and stores, and a fault is, at its node.

benchmarks/devices.py has the tables on exported networks.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx
import pytest

import graphcheck
from tests.zoo import device_nets
from tests.zoo.device_faults import FAULTS, places, seen
from tests.zoo.devices import (
    DEVICES,
    Device,
    Executor,
    Run,
    as_tree,
    device,
    fused_steps,
    in_blocks,
    node_name,
    rounded,
)

NETS = ("head", "lstm", "detector", "attention", "qdq")
NET = {name: device_nets.net(name) for name in NETS}
EXECUTORS = {name: Executor(model) for name, model in NET.items()}
UNITS = {"float32": 2.0**-24, "tf32": 2.0**-11, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def blamed(name: str, on: Device, run: Run) -> Any:
    accumulate = {"accumulate": on.accumulate} if on.accumulate else {}
    return graphcheck.blame(NET[name], run.dump, precision=on.precision, **accumulate)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("on", DEVICES, ids=lambda on: on.name)
def test_an_honest_device_is_clean(net: str, on: Device) -> None:
    for seed in range(2):
        run = EXECUTORS[net].run(device_nets.inputs(net, NET[net], seed), on)
        found = blamed(net, on, run)
        assert [row["node"] for row in found.evidence["convicted"]] == []
        assert str(found.verdict) == "clean" and found.evidence["checked"] >= 0.6 * (len(run.dump) - 1)


@pytest.mark.parametrize("net", NETS)
def test_a_fault_is_convicted_at_its_node(net: str) -> None:
    executor, feeds = EXECUTORS[net], device_nets.inputs(net, NET[net], 0)
    devices = [device(name) for name in ("float32", "float16", "tf32", "float16, every third")]
    honest = {on.name: executor.run(feeds, on).stored for on in devices}
    planted, missed = 0, []
    for number, (fault, (make, _)) in enumerate(FAULTS.items()):
        for turn, place in enumerate(places(executor, fault, 2, 0)):
            on = devices[(number + turn) % len(devices)]
            try:
                run = executor.run(feeds, on, place, make)
            except ValueError:
                continue
            output = next(n.output[0] for n in executor.nodes if node_name(n) == place)
            if not seen(honest[on.name], run.stored, output, UNITS[on.precision]):
                continue
            planted += 1
            first = next(iter(blamed(net, on, run).evidence["convicted"]), None)
            if first is None or place not in (first["node"], *first["region"]):
                missed.append((fault, place, on.name, first and first["node"]))
    assert planted >= 8
    assert len(missed) <= 0.05 * planted, missed


def test_lost_names_and_a_fault() -> None:
    """A wrong convolution in a dump without names: the region that holds it, or nothing, but never another node."""
    executor, feeds = EXECUTORS["head"], device_nets.inputs("head", NET["head"], 0)
    on = dataclasses.replace(device("float16"), named=False)
    convicted = 0
    for fault in ("weight transposed", "tile of zeros", "one channel scaled", "stale accumulator"):
        for place in places(executor, fault, 3, 0):
            try:
                run = executor.run(feeds, on, place, FAULTS[fault][0])
            except ValueError:
                continue
            rows = blamed("head", on, run).evidence["convicted"]
            convicted += bool(rows)
            assert all(place in (row["node"], *row["region"]) for row in rows[:1]), (fault, place)
    assert convicted >= 6


def test_a_masked_softmax_of_subnormal_numbers() -> None:
    """onnxruntime rounds exp(-100) up to the least float32, or all that is subnormal to 0, by processor; neither is a fault."""
    text = "net (float[2,9] x) => (float[2,9] y) { y = Softmax <axis = -1> (x) }"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
    x = np.array([[-105.0, -104.4, -103.7, -103.2, -102.6, -101, -88, -1, 0]] * 2, np.float32) + np.float32(
        [[0], [0.3]]
    )
    run = Executor(model).run({"x": x}, device("float32"))
    least = np.finfo(np.float32).smallest_subnormal
    exact = np.exp(x.astype(np.float64)) / np.exp(x.astype(np.float64)).sum(axis=-1, keepdims=True)
    up = np.where(exact < 1e-44, np.where(np.arange(9) < 2, np.float32(0), least), exact.astype(np.float32))
    for y in (run.dump["y"], up):
        assert str(graphcheck.blame(model, run.dump | {"y": y}, precision="float32").verdict) == "clean"


SUMS = {
    "blocks": in_blocks(4, np.float32),
    "blocks backwards": in_blocks(3, np.float16, backwards=True),
    "tree": as_tree(np.float16),
    "fma": fused_steps(np.float32),
}


@pytest.mark.parametrize("name", SUMS)
def test_the_sums_are_sums(name: str) -> None:
    a, b = np.arange(14.0, dtype=np.float32).reshape(2, 7), np.arange(21.0, dtype=np.float32).reshape(7, 3)
    assert (SUMS[name](a, b) == a @ b).all()


@pytest.mark.parametrize(
    "on", [device("float32, as a tree"), device("float32, sums backwards")], ids=lambda on: on.name
)
def test_convolutions_are_those_of_onnxruntime(on: Device) -> None:
    text = (
        "net (float[2,6,9,8] x) => (float[2,4,5,4] y) <float[4,3,3,2] w, float[4] b> "
        "{ y = Conv <group = 2, strides = [2,2], pads = [1,1,2,1], dilations = [1,2]> (x, w, b) }"
    )
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
    random = np.random.default_rng(2)
    for name, shape in (("w", (4, 3, 3, 2)), ("b", (4,))):
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)
        )
    feeds = {"x": random.standard_normal((2, 6, 9, 8)).astype(np.float32)}
    executor = Executor(model)
    y, z = executor.run(feeds, on).dump["y"], executor.run(feeds, device("float32")).dump["y"]
    assert y.shape == z.shape and np.abs(y - z).max() < 1e-5


def test_tensor_cores_round_to_nearest_even() -> None:
    x = np.array([1 + 2**-10, 1 + 2**-11, 1 + 3 * 2**-11, -1 - 2**-12], np.float32)
    assert rounded(x, 10).tolist() == [1 + 2**-10, 1.0, 1 + 2**-9, -1.0]
