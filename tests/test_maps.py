"""Movement as integer maps: composition, inverse and normal form, against onnxruntime and numpy on random data."""

from __future__ import annotations

import math
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from ops_support import assert_agrees, float64, model, trace, values

from graphcheck.errors import Undecided
from graphcheck.kernel.ops import movement
from graphcheck.kernel.ops.algebra import Algebra
from graphcheck.kernel.ops.node import Node
from graphcheck.kernel.terms.maps import Maps
from graphcheck.kernel.terms.rules import RULES
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.strided import normal
from graphcheck.kernel.terms.verbs import Const, Leaf, Move
from graphcheck.kernel.terms.why import Window
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64

index_maps = st.integers(1, 12).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.integers(0, n), min_size=1, max_size=16))
)


@given(index_maps, st.data())
def test_composition_is_one_gather_after_another(first: tuple[int, list[int]], data: st.DataObject) -> None:
    maps, (n, inner) = Maps(), first
    outer = data.draw(st.lists(st.integers(0, len(inner)), min_size=1, max_size=16))
    source = np.arange(1.0, n + 1)
    middle = np.concatenate([[0], source])[inner]
    wanted = np.concatenate([[0], middle])[outer]
    a, b = maps.intern(np.asarray(inner)), maps.intern(np.asarray(outer))
    both = maps.compose(a, b)
    index = np.arange(1, n + 1) if both is None else both.index
    assert np.array_equal(np.concatenate([[0], source])[index], wanted)


@given(st.permutations(range(1, 9)))
def test_inverse_undoes_a_permutation(order: list[int]) -> None:
    maps = Maps()
    map_ = maps.intern(np.asarray(order))
    back = maps.inverse(map_)
    assert back is not None and maps.inverse(back) is map_
    both = maps.compose(map_, back)
    assert both is None or both.identity


def test_what_is_no_permutation_has_no_inverse() -> None:
    maps = Maps()
    for index in ([1, 1], [0, 1], [1, 3], [2]):
        assert maps.inverse(maps.intern(np.asarray(index))) is None


@given(st.lists(st.integers(0, 6), max_size=8), st.integers(-2, 5), st.integers(1, 4))
def test_blocks_with_a_step_between_them_are_their_array(once: list[int], step: int, blocks: int) -> None:
    once = [n and n + 8 for n in once]  # no step makes a zero of it
    whole = np.asarray([n and n + step * at for at in range(blocks) for n in once], np.int64)
    maps = Maps()
    found = maps.repeated(np.asarray(once, np.int64), step, blocks)
    assert found.size == whole.size and np.array_equal(found.index, whole)
    assert np.array_equal(found.at(np.arange(whole.size)[::-1]), whole[::-1])
    assert found.has_zero == (0 in whole) and found.empty == (not whole.any())
    assert maps.intern(whole) is found is maps.repeated(np.asarray(once, np.int64), step, blocks)
    other = Maps()
    assert other.repeated(np.asarray(once, np.int64), step, blocks) is not found
    assert other.intern(whole) is other.repeated(np.asarray(once, np.int64), step, blocks)


@pytest.mark.parametrize(("once", "step"), [([2, 1, 3, 5, 4, 6], 6), ([14, 13, 18, 17, 15, 16], -6)])
def test_blocks_of_a_permutation_have_an_inverse(once: list[int], step: int) -> None:
    maps = Maps()
    found = maps.repeated(np.asarray(once), step, 3)
    back = maps.inverse(found)
    assert found.blocks == 3 and back is not None and maps.compose(found, back).identity  # type: ignore[union-attr]
    assert maps.inverse(maps.repeated(np.asarray(once), step // 2, 3)) is None


@given(st.permutations(range(3)), st.booleans(), st.sampled_from([0, 1, 2, None]), st.data())
def test_blocks_seen_through_a_form_are_what_their_array_is(
    perm: list[int], guarded: bool, axis: int | None, data: st.DataObject
) -> None:
    maps, box = Maps(), [(2, 3, 4)[p] for p in perm]
    form = normal(box, 0, [(12, 4, 1)[p] for p in perm], [((1, 1, 0), 1, 9)] if guarded else ())
    step = data.draw(st.integers(1, 12)) if axis is None else math.prod(box[axis + 1 :])
    once = data.draw(st.lists(st.integers(0, min(24, step + data.draw(st.integers(0, 1)))), min_size=2, max_size=4))
    blocks = data.draw(st.integers(1, 1 + (24 - max(once)) // step))
    whole = [n and n + step * at for at in range(blocks) for n in once]
    inner = maps.of(form)
    both = maps.compose(inner, maps.repeated(np.asarray(once), step, blocks))
    assert both is not None and np.array_equal(both.index, np.concatenate([[0], inner.index])[whole])


def test_blocks_of_one_array_with_other_steps_are_other_maps() -> None:
    maps, once = Maps(), np.zeros(4000, np.int64)
    once[[1, 2]] = 2, 1  # where no element is looked at first
    assert maps.repeated(once, 4, 2) is not maps.repeated(once, 5, 2) is maps.repeated(once, 5, 2)


def test_blocks_of_channels_that_lie_last_stay_blocks() -> None:
    maps = Maps()
    outer = maps.repeated(np.asarray([2, 0, 1, 4, 3]), 4, 3)
    both = maps.compose(maps.box((3, 4), (1, 3)), outer)
    assert both is not None and both.blocks == outer.blocks == 3 and both.step == 1 and both.once.tolist() == [4, 0, 1, 10, 7]
    assert maps.compose(maps.box((3, 4), (1, 3)), maps.repeated(np.asarray([2, 0, 1, 5, 3]), 4, 2)).blocks == 1  # type: ignore[union-attr]


def test_equal_maps_are_the_same_object() -> None:
    maps = Maps()
    assert maps.intern(np.asarray([2, 1])) is maps.intern(np.asarray([[2], [1]], np.int32))
    assert maps.intern(np.asarray([2, 1])) is not maps.intern(np.asarray([1, 2]))


class Chain:
    """A random chain of movement nodes, with an elementwise node or a second operand now and then."""

    def __init__(self, draw: st.DrawFn, *, arithmetic: bool) -> None:
        rank = draw(st.integers(1, 4))
        self.shape = tuple(draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank)))
        self.start, self.arithmetic, self.draw = self.shape, arithmetic, draw
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.value, self.count = "x", 0
        for _ in range(draw(st.integers(1, 7))):
            kinds = ["reshape", "transpose", "slice", "pad", "concat", "gather", "tile", "squeeze"]
            getattr(
                self,
                draw(
                    st.sampled_from(
                        kinds
                        + (["unary", "binary", "unary", "binary", "sum", "softmax", "matmul"] if arithmetic else [])
                    )
                ),
            )()

    def emit(
        self, op: str, extra: list[Any], shape: tuple[int, ...], more: tuple[str, ...] = (), **attributes: Any
    ) -> None:
        names = []
        for array in extra:
            name = f"c{len(self.constants)}"
            self.constants.append(numpy_helper.from_array(np.asarray(array), name))
            names.append(name)
        self.count += 1
        self.nodes.append(helper.make_node(op, [self.value, *more, *names], [f"t{self.count}"], **attributes))
        self.value, self.shape = f"t{self.count}", shape

    def axis(self) -> int:
        return self.draw(st.integers(0, len(self.shape) - 1))

    def reshape(self) -> None:
        size = math.prod(self.shape)
        first = self.draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0])) if size else 1
        rest = size // first
        second = self.draw(st.sampled_from([d for d in range(1, rest + 1) if rest % d == 0]))
        shape = (first, second, rest // second)
        self.emit("Reshape", [np.asarray(shape, np.int64)], shape)

    def transpose(self) -> None:
        perm = self.draw(st.permutations(range(len(self.shape))))
        self.emit("Transpose", [], tuple(self.shape[p] for p in perm), perm=list(perm))

    def slice(self) -> None:
        axis = self.axis()
        step = self.draw(st.sampled_from([1, 2, -1]))
        n = self.shape[axis]
        start = self.draw(st.integers(0, n - 1))
        end = n if step > 0 else -n - 1
        kept = len(range(start, n, step) if step > 0 else range(start, -1, step))
        shape = (*self.shape[:axis], kept, *self.shape[axis + 1 :])
        self.emit("Slice", [np.asarray([v], np.int64) for v in (start, end, axis, step)], shape)

    def pad(self) -> None:
        pads = [self.draw(st.integers(0, 1)) for _ in range(2 * len(self.shape))]
        rank = len(self.shape)
        shape = tuple(n + pads[i] + pads[i + rank] for i, n in enumerate(self.shape))
        value = np.asarray(self.draw(st.sampled_from([0.0, 0.0, 2.5])), np.float32)
        if math.prod(shape) < 400:
            self.emit("Pad", [np.asarray(pads, np.int64), value], shape)

    def concat(self) -> None:
        axis = self.axis()
        other = values(self.shape, 3) if self.draw(st.booleans()) else None
        shape = (*self.shape[:axis], 2 * self.shape[axis], *self.shape[axis + 1 :])
        if math.prod(shape) < 400:
            self.emit(
                "Concat", [] if other is None else [other], shape, (self.value,) if other is None else (), axis=axis
            )

    def gather(self) -> None:
        axis = self.axis()
        n = self.shape[axis]
        indices = self.draw(st.lists(st.integers(-n, n - 1), min_size=1, max_size=4))
        shape = (*self.shape[:axis], len(indices), *self.shape[axis + 1 :])
        self.emit("Gather", [np.asarray(indices, np.int64)], shape, axis=axis)

    def tile(self) -> None:
        repeats = [self.draw(st.integers(1, 2)) for _ in self.shape]
        shape = tuple(n * r for n, r in zip(self.shape, repeats, strict=True))
        if math.prod(shape) < 400:
            self.emit("Tile", [np.asarray(repeats, np.int64)], shape)

    def squeeze(self) -> None:
        self.emit("Unsqueeze", [np.asarray([0], np.int64)], (1, *self.shape))

    def unary(self) -> None:
        self.emit(self.draw(st.sampled_from(["Relu", "Neg", "Tanh", "Sigmoid", "Abs", "Exp"])), [], self.shape)
        if self.nodes[-1].op_type == "Exp":
            self.emit("Tanh", [], self.shape)

    def binary(self) -> None:
        keep = [self.draw(st.booleans()) for _ in self.shape]
        other = values(tuple(n if k else 1 for n, k in zip(self.shape, keep, strict=True)), 5)
        self.emit(self.draw(st.sampled_from(["Add", "Mul", "Sub", "Max"])), [other], self.shape)

    def sum(self) -> None:
        axis = self.axis()
        shape = (*self.shape[:axis], 1, *self.shape[axis + 1 :])
        self.emit(self.draw(st.sampled_from(["ReduceMean", "ReduceMax"])), [np.asarray([axis], np.int64)], shape)

    def softmax(self) -> None:
        self.emit("Softmax", [], self.shape, axis=self.axis())

    def matmul(self) -> None:
        if len(self.shape) > 1:
            self.emit("MatMul", [values((self.shape[-1], 3), 6)], (*self.shape[:-1], 3))

    def model(self) -> onnx.ModelProto:
        self.emit("Identity", [], self.shape)
        x = helper.make_tensor_value_info("x", 1, self.start)
        y = helper.make_tensor_value_info(self.value, 1, self.shape)
        graph = helper.make_graph(self.nodes, "g", [x], [y], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@st.composite
def chains(draw: st.DrawFn, *, arithmetic: bool) -> Chain:
    return Chain(draw, arithmetic=arithmetic)


@settings(max_examples=300)
@given(chains(arithmetic=False))
def test_any_chain_of_movement_is_one_map(chain: Chain) -> None:
    proto, feeds = chain.model(), {"x": values(chain.start)}
    assert_agrees(proto, feeds, units=0.0)
    assert_agrees(proto, feeds, units=0.0, normalize=False)
    m, (y,) = trace(proto, feeds)
    term = m.terms.term(y.cls)
    assert isinstance(term.verb, (Leaf, Move, Const))
    assert all(isinstance(m.terms.terms[a].verb, (Leaf, Const)) for a in term.args)


@settings(max_examples=300)
@given(chains(arithmetic=True))
def test_normal_form_keeps_the_values(chain: Chain) -> None:
    proto, feeds = chain.model(), {"x": values(chain.start)}
    straight, normal = (assert_agrees(proto, feeds, units=2000.0, normalize=n)[0] for n in (False, True))
    assert bool((np.abs(straight.value - normal.value) <= straight.error + normal.error).all())


@settings(max_examples=100)
@given(chains(arithmetic=True))
def test_merged_classes_rebuild_to_the_same_values(chain: Chain) -> None:
    """Two leaves for one input, joined afterwards: everything above is re-keyed and must keep its value."""
    proto, x = chain.model(), values(chain.start)
    terms = Terms(RULES)
    import onnx_ir as ir

    from graphcheck.kernel.interpreter import Interpreter
    from graphcheck.kernel.ops.algebra import Algebra, Tensor

    m = Algebra(terms)
    outputs = []
    for name in ("a", "b"):
        leaf = Tensor(terms.leaf((name,), x.size), x.shape, x.dtype)
        outputs.append(Interpreter(ir.from_proto(proto), m).run({"x": leaf}).outputs[0])
    two = outputs[1]
    wanted = float64(proto, {"x": x})[0]
    if isinstance(two, np.ndarray):
        return
    terms.merge(terms.leaf(("a",), x.size), terms.leaf(("b",), x.size), Window("near", 0, 24, -40.0))
    real = evaluate(terms, Float64({("a",): x, ("b",): x}), [two.cls])[terms.find(two.cls)]
    assert bool((np.abs(real.value - wanted.value.reshape(-1)) <= real.error + wanted.error.reshape(-1)).all())


@settings(max_examples=200)
@given(st.data())
def test_einsum(data: st.DataObject) -> None:
    sizes = {c: data.draw(st.integers(1, 3)) for c in "abcde"}
    count = data.draw(st.integers(1, 3))
    terms = [data.draw(st.text("abcde", min_size=1, max_size=4)) for _ in range(count)]
    used = sorted(set("".join(terms)))
    right = "".join(data.draw(st.permutations(used)))[: data.draw(st.integers(0, len(used)))]
    arrays = [values(tuple(sizes[c] for c in t), i) for i, t in enumerate(terms)]
    names = ", ".join(f"float[{','.join(str(n) for n in a.shape)}] x{i}" for i, a in enumerate(arrays))
    out = ",".join(str(sizes[c]) for c in right)
    equation = ",".join(terms) + "->" + right
    body = f'{{ y = Einsum<equation = "{equation}">({", ".join(f"x{i}" for i in range(count))}) }}'
    proto = model(f"g ({names}) => (float{f'[{out}]' if right else ''} y) {body}")
    feeds = {f"x{i}": a for i, a in enumerate(arrays)}
    wanted = np.einsum(equation, *(a.astype(np.float64) for a in arrays))
    for normalize in (True, False):
        y = float64(proto, feeds, normalize=normalize)[0]
        assert y.value.shape == wanted.shape
        assert bool((np.abs(y.value - wanted) <= y.error + 1e-13 * np.abs(wanted).max(initial=1)).all())


@settings(max_examples=200)
@given(st.data())
def test_broadcasting_of_elementwise_operators(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=0, max_size=4))
    shapes = []
    for _ in range(2):
        seen = [n if data.draw(st.booleans()) else 1 for n in shape]
        shapes.append(tuple(seen[data.draw(st.integers(0, len(seen))) :]))
    a, b = values(shapes[0], 1), values(shapes[1], 2)
    op, fn = data.draw(
        st.sampled_from(
            [("Add", np.add), ("Mul", np.multiply), ("Sub", np.subtract), ("Max", np.maximum), ("Less", np.less)]
        )
    )
    types = [f"float[{','.join(map(str, s))}]" if s else "float" for s in shapes]
    proto = model(f"g ({types[0]} a, {types[1]} b) => ({'bool' if op == 'Less' else 'float'} y) {{ y = {op}(a, b) }}")
    wanted = fn(a.astype(np.float64), b.astype(np.float64))
    for normalize in (True, False):
        y = float64(proto, {"a": a, "b": b}, normalize=normalize)[0]
        assert y.value.shape == wanted.shape
        assert bool((np.abs(y.value - wanted) <= y.error).all())


def test_constants_are_known_by_their_exact_values() -> None:
    """Beyond 2**53 a float64 key would call two integers the same, an address without strides two slices."""
    terms = Terms(RULES)
    big = [2**53, 2**53 + 1]
    assert terms.const(np.asarray([big[0]] * 3 + [0], np.int64)) != terms.const(
        np.asarray([big[1]] * 3 + [0], np.int64)
    )
    base = values((200,))
    assert terms.const(base[:100]) != terms.const(base[::2])
    assert terms.const(base[:100]) == terms.const(base[:100].copy())
    assert terms.const(np.asarray([1.0, 2.0], np.float32)) == terms.const(np.asarray([1, 2], np.int64))


def test_the_reciprocal_of_a_large_power_of_two_is_kept() -> None:
    terms = Terms(RULES)
    recip = terms.ew("recip", [(terms.const(np.asarray([2.0**200])), None)], 1)
    assert terms.arrays[recip][0] == 2.0**-200


def test_a_small_map_may_read_far_ahead() -> None:
    maps, far = Maps(), np.array([1, 2**32 + 1, 2, 2**33 + 2, 7])
    map_ = maps.intern(far)
    assert map_.index.tolist() == far.tolist()
    assert map_ is not maps.intern(np.array([1, 1, 2, 2, 7]))
    rows = maps.box((3, 2), (2**32, 1))
    assert rows.index.tolist() == [1, 2, 2**32 + 1, 2**32 + 2, 2**33 + 1, 2**33 + 2]
    assert rows is maps.intern(rows.index.copy()) and rows is not maps.intern(np.array([1, 2, 1, 2, 1, 2]))


def test_what_leaves_out_the_padding_of_operands_is_the_function_of_what_they_were() -> None:
    """A piece of Relu(Pad(x) + Pad(y)) is Relu(x + y), and one that keeps some padding is not."""
    terms, n = Terms(RULES), 6
    x, y = (terms.leaf(("input", name), n) for name in "xy")
    padded = [terms.move((c,), terms.maps.part(2 * n, 1, n)) for c in (x, y)]
    total = terms.ew("add", [(c, None) for c in padded], 2 * n)
    whole = terms.ew("exp", [(total, None)], 2 * n)
    wanted = terms.ew("exp", [(terms.ew("add", [(x, None), (y, None)], n), None)], n)
    assert terms.move((whole,), terms.maps.intern(np.arange(2, n + 2))) == wanted
    assert isinstance(terms.terms[terms.move((whole,), terms.maps.intern(np.arange(1, n + 1)))].verb, Move)


def test_movement_inside_of_functions_takes_no_time_that_doubles_with_each() -> None:
    """x * exp(x), forty times, on a tensor that is padded: each is looked into once."""
    terms, n = Terms(RULES), 3
    padded = terms.move((terms.leaf(("input", "x"), n),), terms.maps.part(2 * n, 0, n))
    bare = terms.move((padded,), terms.maps.intern(np.arange(1, n + 1)))
    for _ in range(20):
        padded = terms.ew("mul", [(padded, None), (terms.ew("exp", [(padded, None)], 2 * n), None)], 2 * n)
        bare = terms.ew("mul", [(bare, None), (terms.ew("exp", [(bare, None)], n), None)], n)
    assert terms.move((padded,), terms.maps.intern(np.arange(1, n + 1))) == bare


def test_a_constant_is_moved_by_a_map_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a weight is that every step of a recurrence turns: each copy is held on to."""
    terms, made = Terms(RULES), list[np.ndarray]()
    weight, turned = terms.const(np.arange(6.0)), terms.maps.transpose((2, 3), (1, 0))
    const = terms.const
    monkeypatch.setattr(terms, "const", lambda array, *rest: made.append(array) or const(array, *rest))
    first, second = (terms.move((weight,), turned) for _ in range(2))
    assert first == second and [array.tolist() for array in made] == [[0, 3, 1, 4, 2, 5]]


@st.composite
def views_of_data(draw: st.DrawFn) -> tuple[Node, tuple[np.ndarray, ...]]:
    """An operator that gives views, its data, and what steers it; axes of 0 and 1, negative steps and empty parts too."""
    shape = tuple(draw(st.lists(st.sampled_from([0, 1, 1, 2, 3, 5]), min_size=1, max_size=4)))
    rank, op = len(shape), draw(st.sampled_from(sorted(movement._VIEWS)))
    attributes: dict[str, Any] = {}
    steering: list[list[int]] = []
    several = st.permutations(range(rank)).map(lambda axes: axes[: max(1, rank - 1)])
    if op == "Transpose":
        attributes["perm"] = draw(st.permutations(range(rank)))
    elif op == "Flatten":
        attributes["axis"] = draw(st.integers(0, rank))
    elif op == "Reshape":
        attributes["allowzero"], steering = 1, [[*draw(st.permutations(shape)), 1]]
    elif op == "Unsqueeze":
        steering = [[0, rank + 1]]
    elif op == "Slice":
        axes = draw(several)
        far = [draw(st.lists(st.integers(-6, 6), min_size=len(axes), max_size=len(axes))) for _ in range(2)]
        steering = [*far, axes, [draw(st.sampled_from([-3, -1, 1, 2])) for _ in axes]]
    elif op == "Split":
        attributes["axis"] = axis = draw(st.integers(0, rank - 1))
        cut = draw(st.integers(0, shape[axis]))
        steering = [[cut, shape[axis] - cut]]
    inputs = (np.zeros(shape, np.float32), *(np.asarray(values, np.int64) for values in steering))
    count, outputs = len(inputs), 2 if op == "Split" else 1
    return Node("", op, 18, "n", attributes, count, outputs, (True,) * count, (True,) * outputs), inputs


def told(node: Node, inputs: tuple[np.ndarray, ...], algebra: Algebra, *, numbered: bool) -> Any:
    """The maps of an operator and the shapes, by its strides or by numbers; the sentence where it does not take the inputs."""
    with mock.patch.object(movement, "_VIEWS", frozenset() if numbered else movement._VIEWS):
        try:
            return movement._maps(algebra, node, inputs, [0])
        except Undecided as error:
            return str(error)


@given(views_of_data())
def test_the_strides_of_a_view_give_the_map_that_numbers_give(case: tuple[Node, tuple[np.ndarray, ...]]) -> None:
    algebra = Algebra(Terms(RULES))
    assert told(*case, algebra, numbered=False) == told(*case, algebra, numbered=True)  # maps are equal where they are one


def test_a_view_told_wrong_would_be_found() -> None:
    node = Node("", "Transpose", 18, "n", {"perm": [1, 0]}, 1, 1, (True,), (True,))
    algebra, inputs = Algebra(Terms(RULES)), (np.zeros((2, 3), np.float32),)
    right = told(node, inputs, algebra, numbered=True)
    assert told(node, inputs, algebra, numbered=False) == right
    with mock.patch.object(movement.strided, "normal", lambda box, start, strides: normal(box, start, strides[::-1])):
        assert told(node, inputs, algebra, numbered=False) != right
