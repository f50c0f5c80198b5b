"""RNN, GRU and LSTM, unrolled over their steps.

Source: https://onnx.ai/onnx/operators/onnx__LSTM.html, onnx__GRU.html, onnx__RNN.html (gates iofc, zrh, i).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphcheck.errors import Refused, Untaught
from graphcheck.kernel.ops import arithmetic, rows
from graphcheck.kernel.ops.algebra import Algebra, Some, Tensor, Value
from graphcheck.kernel.ops.node import Node

MAX_STEPS = 256  # longer ones stay unknown functions
_WAYS = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
_ACTIVATIONS = {"Sigmoid", "Tanh", "Relu"}

State = tuple[Some, ...]
# one step: the projected input [B, G*H] with biases of the gates, and the state to the next state; state[0] is the output
Step = Callable[[Some, State], State]


Before = Callable[[Algebra, Some], Some]  # what is done to the inputs and the states before they are multiplied


def _as_it_is(m: Algebra, x: Some) -> Some:
    return x


class _Direction:
    """The parameters of one direction: ``w`` [G*H, I], ``r`` [G*H, H], biases ``wb`` and ``rb`` [G*H], ``p`` [3*H]."""

    def __init__(self, m: Algebra, node: Node, at: int, given: Sequence[Value], gates: int, defaults: list[str]) -> None:
        self.m, self.node, self.gates = m, node, gates
        self.before: Before = _as_it_is
        w, r, b, p = given
        assert w is not None and r is not None
        self.w, self.r = (_part(m, x, at) for x in (w, r))
        self.hidden = r.shape[-1]
        bias = np.zeros(2 * gates * self.hidden, w.dtype) if b is None else _part(m, b, at)
        self.wb, self.rb = (_cut(m, bias, i * gates * self.hidden, gates * self.hidden) for i in (0, 1))
        self.p = None if p is None else _part(m, p, at)
        names = [str(n.decode() if isinstance(n, bytes) else n) for n in node.attr("activations") or []]
        names = names[at * len(defaults) : (at + 1) * len(defaults)] or defaults
        known = {name.lower(): name for name in _ACTIVATIONS}
        if not {name.lower() for name in names} <= set(known) or node.attr("clip") or node.attr("input_forget", 0):
            raise Untaught(f"{node.op_type} with activations {names}, clip or input_forget", node.name)
        self.activations = [known[name.lower()] for name in names]

    def act(self, which: int, x: Some) -> Some:
        """f, g and h of the operator's page are numbers 0, 1 and 2."""
        name = self.activations[which]
        plain = Node("", name, self.node.version, self.node.name, {}, 1, 1, (True,), (True,))
        return arithmetic.OPS[name](self.m, plain, x)  # type: ignore[no-any-return]

    def gate(self, x: Some, i: int) -> Some:
        """Gate ``i`` of [..., G*H]."""
        return _cut(self.m, x, i * self.hidden, self.hidden)

    def recurrence(self, h: Some, first: int, count: int, bias: bool = True) -> Some:
        """h R^T + Rb of ``count`` gates from ``first``: [B, count*H]."""
        start, size = first * self.hidden, count * self.hidden
        y: Some = self.m.matmul(self.before(self.m, h), self.m.transpose(_rows(self.m, self.r, start, size), (1, 0)))
        return self.m.add(y, _cut(self.m, self.rb, start, size)) if bias else y


def rnn(m: Algebra, node: Node, x: Some, w: Some, r: Some, b: Value = None, lens: Value = None, h: Value = None) -> Any:
    """H' = f(x W^T + H R^T + Wb + Rb)."""

    def step(d: _Direction) -> Step:
        return lambda x, s: (d.act(0, m.add(x, d.recurrence(s[0], 0, 1))),)

    return _run(m, node, x, (w, r, b, None), lens, (h,), step, ["Tanh"], 1)


def gru(m: Algebra, node: Node, x: Some, w: Some, r: Some, b: Value = None, lens: Value = None, h: Value = None) -> Any:
    """H' = (1 - z) * g(...) + z * H, with the reset gate before or behind the product (``linear_before_reset``)."""

    def step(d: _Direction) -> Step:
        def run(x: Some, s: State) -> State:
            zr = d.recurrence(s[0], 0, 2)
            z, reset = (d.act(0, m.add(d.gate(x, i), d.gate(zr, i))) for i in (0, 1))
            if node.attr("linear_before_reset", 0):
                inner = m.mul(reset, d.recurrence(s[0], 2, 1))
            else:
                inner = d.recurrence(m.mul(reset, s[0]), 2, 1)
            new = d.act(1, m.add(d.gate(x, 2), inner))
            return (m.add(m.mul(m.sub(m.scalar(1, z), z), new), m.mul(z, s[0])),)

        return run

    return _run(m, node, x, (w, r, b, None), lens, (h,), step, ["Sigmoid", "Tanh"], 3)


def lstm(
    m: Algebra,
    node: Node,
    x: Some,
    w: Some,
    r: Some,
    b: Value = None,
    lens: Value = None,
    h: Value = None,
    c: Value = None,
    p: Value = None,
    before: Before = _as_it_is,
) -> Any:
    """C' = f * C + i * g(...), H' = o * h(C'), with peepholes ``p`` in the order i, o, f."""

    def step(d: _Direction) -> Step:
        def peep(y: Some, i: int, cell: Some) -> Some:
            return y if d.p is None else m.add(y, m.mul(d.gate(d.p, i), cell))

        def run(x: Some, s: State) -> State:
            hidden, cell = s
            sums = m.add(x, d.recurrence(hidden, 0, 4))
            i, o, f, new = (d.gate(sums, k) for k in range(4))
            kept = m.mul(d.act(0, peep(f, 2, cell)), cell)
            after = m.add(kept, m.mul(d.act(0, peep(i, 0, cell)), d.act(1, new)))
            return (m.mul(d.act(0, peep(o, 1, after)), d.act(2, after)), after)

        return run

    return _run(m, node, x, (w, r, b, p), lens, (h, c), step, ["Sigmoid", "Tanh", "Tanh"], 4, before)


def _run(
    m: Algebra,
    node: Node,
    x: Some,
    given: tuple[Value, ...],
    lens: Value,
    initial: tuple[Value, ...],
    step: Callable[[_Direction], Step],
    defaults: list[str],
    gates: int,
    before: Before = _as_it_is,
) -> tuple[Some, ...]:
    """Y and the last states: [S, D, B, H] and [D, B, H], or with layout 1 [B, S, D, H] and [B, D, H]."""
    way, layout = node.attr("direction", "forward"), node.attr("layout", 0)
    ways = _WAYS.get(way.decode() if isinstance(way, bytes) else way)
    if ways is None or layout not in (0, 1):
        raise Untaught(f"{node.op_type} with direction {way} and layout {layout}", node.name)
    behind = layout == 1  # batch first
    x = m.transpose(x, (1, 0, 2)) if behind else x
    steps, batch, size = x.shape
    whole = lens is None or (isinstance(lens, np.ndarray) and (lens == steps).all())
    if node.version < 7 or not whole or not 0 < steps <= MAX_STEPS:
        raise Untaught(f"{node.op_type} over {steps} steps of given or unknown length", node.name)
    outputs, lasts = [], []
    for at, backward in enumerate(ways):
        d = _Direction(m, node, at, given, gates, defaults)
        d.before = before
        whole_input = m.matmul(m.reshape(before(m, x), (steps * batch, size)), m.transpose(d.w, (1, 0)))
        projected = m.reshape(m.add(whole_input, d.wb), (steps, batch, gates * d.hidden))
        zero = np.zeros((batch, d.hidden), x.dtype)
        start = [None if s is None else m.transpose(s, (1, 0, 2)) if behind else s for s in initial]
        if any(s is not None and s.shape != (len(ways), batch, d.hidden) for s in start):
            raise Refused(f"{node.op_type} of {list(x.shape)} does not begin with a state for each of its rows", node.name)
        state: State = tuple(zero if s is None else _part(m, s, at) for s in start)
        run, seen = step(d), []
        for t in reversed(range(steps)) if backward else range(steps):
            state = run(_part(m, projected, t), state)
            seen.append(state[0])
        outputs.append(_stack(m, seen[::-1] if backward else seen))
        lasts.append(state)
    y = m.transpose(_stack(m, outputs), (2, 1, 0, 3) if behind else (1, 0, 2, 3))
    ends: list[Some] = [_stack(m, [s[i] for s in lasts]) for i in range(len(initial))]
    return (y, *(m.transpose(e, (1, 0, 2)) if behind else e for e in ends))[: node.n_outputs]


def _part(m: Algebra, x: Some, at: Any) -> Some:
    """x[at]."""
    if isinstance(x, np.ndarray):
        return np.asarray(x[at])
    index = np.ascontiguousarray(np.arange(1, 1 + int(np.prod(x.shape))).reshape(x.shape)[at])
    return m.pick(x, index, index.shape)


def _rows(m: Algebra, x: Some, start: int, size: int) -> Some:
    """x[start : start + size]."""
    return _part(m, x, np.s_[start : start + size])


def _cut(m: Algebra, x: Some, start: int, size: int) -> Some:
    """x[..., start : start + size]."""
    return _part(m, x, np.s_[..., start : start + size])


def _stack(m: Algebra, parts: Sequence[Some]) -> Tensor:
    """Parts of one shape along a new first axis."""
    shape = (len(parts), *parts[0].shape)
    return m.join(parts, np.arange(1, 1 + int(np.prod(shape))).reshape(shape), shape, parts[0].dtype)


OPS: dict[str, Callable[..., Any]] = rows.ops(rows.recurrent, {"RNN": rnn, "GRU": gru, "LSTM": lstm})
