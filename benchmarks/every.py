"""Looks for false types of rows: python -m benchmarks.every [--graphs N] [--seed N] [--seconds N]

Random graphs with a free batch that mix rows, or switch on sizes, about half of the time. Each tensor that the trace types
as rows or fixed is held against onnxruntime at a dozen sizes and around each breakpoint, with rows drawn anew. Ends with 1
if one is false; each is named by the seed that makes it again, and ``--show SEED`` writes its graph.
"""

from __future__ import annotations

import collections
import sys

import numpy as np
import onnx

from benchmarks.seeds import fuzz
from graphcheck.errors import Undecided
from tests import rows_support as support
from tests.rows_graphs import Maker

_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 17, 33, 260)




def looked(seed: int) -> tuple[collections.Counter[str], str | None]:
    """What the trace says of the graph of a seed, counted, and what is false of it."""
    maker = Maker(seed)
    made = [name for node in maker.nodes for name in node.output]
    counts: collections.Counter[str] = collections.Counter(graphs=1)
    if not made:
        return counts, None
    whole = maker.model(made)
    try:
        sizing = support.typed(whole, maker.n)
    except Undecided:
        return counts + collections.Counter(undecided=1), None
    kinds = [support.text(kind) for kind in sizing.outputs]
    named = [name for name, kind in zip(made, kinds, strict=True) if kind not in ("mixed", "sized")]
    said = [kind for kind, word in zip(sizing.outputs, kinds, strict=True) if word not in ("mixed", "sized")]
    counts.update(collections.Counter(word.split()[0] for word in kinds))
    counts["graphs with rows at the end"] += kinds[-1].startswith("rows")
    counts["breakpoints"] += len(sizing.breaks)
    if not named:
        return counts, None
    sizes = {*_SIZES, *(n + d for n in sizing.breaks if n < 60 for d in (-1, 0, 1) if n + d)}
    model = maker.model(named)
    try:  # a graph that onnxruntime does not take at the traced size says nothing
        pool = support.draw(model, support.POOL, seed)
        support.session(model).run(None, support.chosen(model, pool, range(maker.n)))
    except Exception:
        return counts + collections.Counter(refused=1), None
    counts["graphs that ran"] += 1
    return counts, support.broken(model, said, sorted(sizes), seed)


def show(seed: int) -> None:
    """Print the graph of a seed, and what is said of it."""
    maker = Maker(seed)
    print(f"traced at {maker.n}\n{onnx.printer.to_text(maker.model([o for node in maker.nodes for o in node.output]))}")
    print(looked(seed))


if __name__ == "__main__":
    np.seterr(all="ignore")
    sys.exit(fuzz(__doc__, "graphs", "false types", looked, show))
