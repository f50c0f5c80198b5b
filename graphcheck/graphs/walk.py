"""The one walk back, from values to what they are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import onnx_ir as ir


def back(
    values: Iterable[ir.Value | None], further: Callable[[ir.Value], Iterable[ir.Value | None]]
) -> Iterator[ir.Value]:
    """``values`` and those behind them, each once; ``further`` gives those to go on with from one, such as
    :func:`operands`.
    """
    stack, seen = list(values), set[ir.Value]()
    while stack:
        value = stack.pop()
        if value is not None and value not in seen:
            seen.add(value)
            yield value
            stack += further(value)


def chain(value: ir.Value | None, step: Callable[[ir.Node], ir.Value | None]) -> Iterator[ir.Value]:
    """``value``, then the operand of its producer that ``step`` picks, and so on until there is none."""
    while value is not None:
        yield value
        producer = value.producer()
        value = None if producer is None else step(producer)


def operands(value: ir.Value) -> tuple[ir.Value | None, ...]:
    """What the producer of a value reads; () where it has none."""
    producer = value.producer()
    return () if producer is None else tuple(producer.inputs)


def makers(values: Iterable[ir.Value]) -> list[ir.Node]:
    """The producers of values, each once, in the order of the values."""
    return list(dict.fromkeys(node for value in values if (node := value.producer()) is not None))
