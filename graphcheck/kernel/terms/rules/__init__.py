"""What a store may take two expressions for one by: each file is a few rules, here are the choices of them."""

from __future__ import annotations

import dataclasses

from graphcheck.kernel.terms.masks import may_be_neginf
from graphcheck.kernel.terms.rules import affine, columns, extremes, identities, layout, selections
from graphcheck.kernel.terms.rules.flattening import flatten
from graphcheck.kernel.terms.store import Rule, Rules

# Movement stays where the graph has it.
PLAIN = Rules(
    flatten=flatten,
    neginf=may_be_neginf,
    ew=(Rule("identities", identities.scalars, ("add", "mul", "recip")),),
    contract=(Rule("columns", columns.pick),),
    rows=(Rule("columns", columns.single),),
)
_SWAP, _SORT = Rule("columns", columns.swap), Rule("columns", columns.sort)
RULES = dataclasses.replace(
    PLAIN,
    flatten=layout.unjoined,
    ew=(
        *PLAIN.ew,
        Rule("identities", identities.simplify, ("abs", "add", "exp", "log", "mul", "pos", "round", "sqrt")),
        Rule("extremes", extremes.simplify, ("max", "min")),
        Rule("selections", selections.gathered, ("add", "mul")),
        Rule("layout", layout.arrange),
    ),
    contract=(*PLAIN.contract, _SWAP, _SORT),
    rows=(
        *PLAIN.rows,
        Rule("selections", selections.monotone),
        Rule("selections", selections.nested),
        Rule("columns", columns.unordered),
    ),
)
# Constant factors and terms gathered, so that a folded constant faces the expression that it was folded from.
PUSH = dataclasses.replace(RULES, placed=(Rule("affine", affine.push, ("add", "mul")),))
PULL = dataclasses.replace(
    RULES,
    placed=(Rule("affine", affine.pull, ("add", "mul")),),
    contract=(*PLAIN.contract, _SWAP, Rule("affine", affine.pull_scalar), _SORT),
)
AFFINE = {"": RULES, "push": PUSH, "pull": PULL}
