"""The lengths at which free dims are tried: usual ones, and multiples of the numbers that stand in the models.

A patch embedding with free height and width takes multiples of its patch alone; 14 divides 28 and 224, 12 divides neither.
"""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Iterable, Sequence

import onnx_ir as ir

from graphcheck.files.model import all_nodes

_USUAL = (16, 28, 32, 48, 64)
_OWN, _LONGEST = 12, 2**17  # numbers taken from the models, up to a few seconds of sound
_MOST, _LARGEST = 8, 512  # so many of their multiples are tried, for patches and windows up to this size


def constants(models: Iterable[ir.Model]) -> list[int]:
    """Sizes that stand in the models: in short constants of integers, the most frequent first."""
    found: collections.Counter[int] = collections.Counter()
    for model in models:
        values = [v.const_value for v in model.graph.initializers.values()]
        values += [node.outputs[0].const_value for node in all_nodes(model) if node.op_type == "Constant"]
        for tensor in values:
            if tensor is not None and tensor.dtype == ir.DataType.INT64 and tensor.size <= 8:
                found.update(int(n) for n in tensor.numpy().reshape(-1) if 3 <= n <= _LONGEST)
    return [n for n, _ in found.most_common(_OWN)]


def divisors(models: Iterable[ir.Model], usual: Sequence[Sequence[int]]) -> list[int]:
    """Numbers that the models may want lengths to be multiples of: their constants, and what two of those divide.

    Those by which all lengths of one of ``usual`` divide are left out.
    """
    own = sorted(n for n in constants(models) if n <= _LARGEST)
    both = [math.lcm(a, b) for a, b in itertools.combinations(own, 2)]
    found = dict.fromkeys((*own, *sorted(n for n in both if n <= _LARGEST)))
    return [n for n in found if not any(all(length % n == 0 for length in lengths) for lengths in usual)][:_MOST]


def tried(models: Iterable[ir.Model]) -> tuple[int, ...]:
    """Small lengths to try for a free dim that is no batch; twice a patch, since one patch alone hides its stride, and three
    times where twice is the usual one."""
    own = divisors(models, [[length] for length in _USUAL])
    return (*_USUAL, *(times * n for times in (2, 3) for n in own))
