"""The registries of forms: a module with NAME, ``why_not(site)`` and ``build(builder)`` each.

Other distributions bring forms of patch embeddings by entry points of ``graphcheck.forms``. None is trusted: what it writes
is proved.
"""

from __future__ import annotations

from typing import Protocol, cast

import onnx_ir as ir

from graphcheck import plugins
from graphcheck.errors import UsageError
from graphcheck.patches.site import Site, Unembedding
from graphcheck.rewriting import conv, conv_transpose, depth_to_space, matmul, pixels, space_to_depth, unfold
from graphcheck.rewriting.builder import SiteBuilder
from graphcheck.rewriting.common import Groups


class Form(Protocol):
    """One way to write a patch embedding, or an un-embedding."""

    NAME: str

    def why_not(self, site: Site) -> str | None:
        """Why the site cannot have this form; None if it can."""

    def build(self, b: SiteBuilder) -> tuple[ir.Value, Groups]:
        """Write the nodes; returns the result and the axes that each of its dims runs over."""


GROUP = "graphcheck.forms"
FORMS: dict[str, Form] = {form.NAME: cast(Form, form) for form in (conv, matmul, unfold, space_to_depth)}
UNEMBEDDED: dict[str, Form] = {form.NAME: cast(Form, form) for form in (conv_transpose, pixels, depth_to_space)}
OWN = frozenset([*FORMS, *UNEMBEDDED])
for _owner, _, _form in plugins.loaded(GROUP, "form of rewrite", ("NAME", "why_not", "build")):
    if _form.NAME in (*FORMS, *OWN, "fastest"):
        raise UsageError(f"{_owner}: its form of rewrite {_form.NAME!r} has the name of another")
    FORMS[_form.NAME] = _form
NAMES = tuple(dict.fromkeys([*FORMS, *UNEMBEDDED]))


def forms_of(site: Site) -> dict[str, Form]:
    """The forms that a site of its kind may have."""
    return UNEMBEDDED if isinstance(site, Unembedding) else FORMS


def may_be(site: Site) -> str:
    """The forms of its kind as a phrase: ``may be conv, matmul or unfold``."""
    *first, last = forms_of(site)
    return f"may be {', '.join(first)} or {last}"
