"""The registries of forms: a module with NAME, ``why_not(site)`` and ``build(builder)`` each."""

from __future__ import annotations

from typing import Protocol, cast

import onnx_ir as ir

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


FORMS: dict[str, Form] = {form.NAME: cast(Form, form) for form in (conv, matmul, unfold, space_to_depth)}
UNEMBEDDED: dict[str, Form] = {form.NAME: cast(Form, form) for form in (conv_transpose, pixels, depth_to_space)}
NAMES = tuple(dict.fromkeys([*FORMS, *UNEMBEDDED]))


def forms_of(site: Site) -> dict[str, Form]:
    """The forms that a site of its kind may have."""
    return UNEMBEDDED if isinstance(site, Unembedding) else FORMS
