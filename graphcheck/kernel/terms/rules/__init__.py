"""What a store may take two expressions for one by: each file is a few rules, here are the choices of them."""

from __future__ import annotations

import dataclasses

from graphcheck.kernel.terms.masks import may_be_neginf
from graphcheck.kernel.terms.rules import affine, columns, extremes, identities, layout
from graphcheck.kernel.terms.rules.flattening import flatten
from graphcheck.kernel.terms.store import Rules

# Movement stays where the graph has it.
PLAIN = Rules(
    flatten=flatten,
    neginf=may_be_neginf,
    ew=(("identities", identities.scalars),),
    contract=(("columns", columns.pick),),
    rows=(("columns", columns.single),),
)
RULES = dataclasses.replace(
    PLAIN,
    ew=(
        *PLAIN.ew,
        ("identities", identities.simplify),
        ("extremes", extremes.simplify),
        ("layout", layout.arrange),
    ),
    contract=(*PLAIN.contract, ("columns", columns.swap), ("columns", columns.sort)),
    rows=(*PLAIN.rows, ("columns", columns.unordered)),
)
# Constant factors and terms gathered, so that a folded constant faces the expression that it was folded from.
PUSH = dataclasses.replace(RULES, placed=(("affine", affine.push),))
PULL = dataclasses.replace(
    RULES,
    placed=(("affine", affine.pull),),
    contract=(*PLAIN.contract, ("columns", columns.swap), ("affine", affine.pull_scalar), ("columns", columns.sort)),
)
AFFINE = {"": RULES, "push": PUSH, "pull": PULL}
