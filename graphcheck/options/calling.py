"""Options as the keywords of a function."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from graphcheck.errors import UsageError
from graphcheck.options.fields import Group, about, default_of

A = TypeVar("A")
B = TypeVar("B")
G = TypeVar("G")
P = ParamSpec("P")
R = TypeVar("R")
Model = TypeVar("Model", contravariant=True)
Result = TypeVar("Result", covariant=True)


def keywords(
    group: Callable[P, G],
) -> Callable[[Callable[[A, B, G], R]], Callable[Concatenate[A, B, P], R]]:
    """A decorator for ``f(a, b, options)``, which then takes the fields of the group as keywords.

    They stand in its signature, for type checkers too, and in its docstring in place of ``options``. A keyword that no
    field has is a :class:`UsageError` that names the nearest one.
    """
    assert isinstance(group, type) and issubclass(group, Group)
    fields = dataclasses.fields(group)

    def decorate(function: Callable[[A, B, G], R]) -> Callable[Concatenate[A, B, P], R]:
        own = inspect.signature(function)
        *models, _ = own.parameters.values()
        given = [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=default_of(f), annotation=f.type)
            for f in fields
        ]
        signature = own.replace(parameters=[*models, *given])

        @functools.wraps(function)
        def call(*positional: Any, **named: Any) -> R:
            __tracebackhide__ = True  # pytest then shows the caller's own line
            check_names(function.__name__, named, signature.parameters)
            bound = signature.bind(*positional, **named).arguments
            sides = [bound.pop(model.name, model.default) for model in models]
            return function(*sides, group(**bound))  # type: ignore[call-arg]

        call.__signature__ = signature  # type: ignore[attr-defined]
        annotations = {name: parameter.annotation for name, parameter in signature.parameters.items()}
        call.__annotations__ = annotations | {"return": own.return_annotation}
        call.__doc__ = _documented(inspect.cleandoc(function.__doc__ or ""), group)  # Python 3.13 does so itself
        return call

    return decorate


class BehindForm(Protocol[Model, P, Result]):
    """A function of a model and of a form that has a default, which takes keywords behind them."""

    def __call__(self, model: Model, to: str = "conv", *args: P.args, **kwargs: P.kwargs) -> Result:
        """What the function returns."""


def keywords_behind_form(
    group: Callable[P, G],
) -> Callable[[Callable[[A, str, G], R]], BehindForm[A, P, R]]:
    """:func:`keywords` of ``f(model, to, options)``, whose form has a default, which no ``Concatenate`` can say."""
    return keywords(group)  # type: ignore[return-value]


def check_names(function: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise :class:`UsageError` for a keyword that a function does not know; the nearest one is named."""
    known = list(known)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise UsageError(f"{function}() has no option {name!r}; {hint}")


def _documented(doc: str, group: type[Group]) -> str:
    """The docstring with a line for each field in place of that of ``options``."""
    lines = []
    for field in dataclasses.fields(group):
        text = f"{field.name}: {about(field).doc or about(field).help}"
        lines.append(textwrap.fill(text, 112, initial_indent=" " * 4, subsequent_indent=" " * 8))
    before, mark, after = doc.partition("    options: ")
    assert mark, "the docstring has a line for options"
    _, _, rest = after.partition("\n\n")
    return before + "\n".join(lines) + "\n\n" + rest
