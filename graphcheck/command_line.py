"""The command line of a function, made from the groups of options that it takes."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from graphcheck import formats
from graphcheck.options import PANELS, Group, about, checked

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="an ONNX model", show_default=False)]
SideA = Annotated[Path, typer.Argument(metavar="A", help="an ONNX model, the reference", show_default=False)]
SideB = Annotated[Path, typer.Argument(metavar="B", help="the ONNX model to compare with it", show_default=False)]

Field = dataclasses.Field[Any]


def command(function: Callable[..., int]) -> Callable[..., int]:
    """``function`` as typer reads it: a parameter that is a group becomes those of its options that the command takes.

    The command is called by the function's name; what is not given keeps the default of its field.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    del hints["return"]
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and issubclass(hint, Group)}
    taken = {name: fields_of(group, function.__name__) for name, group in groups.items()}
    own = [p.replace(annotation=hints[p.name]) for p in inspect.signature(function).parameters.values()]
    pairs = [(field, group) for name, group in groups.items() for field in taken[name]]
    pairs.sort(key=lambda pair: PANELS.index(about(pair[0]).panel))
    options = [parameter(field, _types(typing.cast(Any, group))[field.name]) for field, group in pairs]

    @functools.wraps(function)
    def call(**given: Any) -> int:
        for name, group in groups.items():
            values = [(field, given.pop(field.name)) for field in taken[name]]
            given[name] = group(**{field.name: value_of(field, value) for field, value in values if is_given(value)})
        return function(**given)

    signature = inspect.Signature([*(p for p in own if p.name not in groups), *options])
    call.__signature__ = signature  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    return call


@functools.cache
def _types(group: Any) -> dict[str, Any]:
    return typing.get_type_hints(group)


def fields_of(group: type[Group], command: str) -> list[Field]:
    """The options of a group that a command takes."""
    return [field for field in dataclasses.fields(group) if command in about(field).of]


def parameter(field: Field, kind: Any) -> inspect.Parameter:
    """An option of typer's; ``kind`` is the type of the field. What is not given is None, or False for a flag."""
    said = about(field)
    takes = said.takes or kind
    # without a metavar, --help says that a flag takes a <bool>
    metavar = "" if takes is bool else said.metavar
    *others, last = formats.FORMATS
    text = said.help.replace("{formats}", f"{', '.join(others)} or {last}")
    declared = typer.Option(
        *said.names, help=text, rich_help_panel=said.panel, metavar=metavar, min=said.least, show_default=False
    )
    if takes is not bool:
        takes = types.GenericAlias(list, takes) | None if said.repeatable else takes | None
    default = False if takes is bool else None
    annotation = Annotated[takes, declared]  # type: ignore[valid-type]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def is_given(value: Any) -> bool:
    """Whether an option stands on the command line: typer gives None, False or an empty list for one that does not."""
    return value is not None and value is not False and value != []


def value_of(field: Field, given: Any) -> Any:
    """What the field holds of what was given; the sentence of a wrong value calls the option as it is spelled."""
    said, spelled = about(field), about(field).names[-1]
    if given is True:  # --no-run turns off what is on
        return not field.default
    return checked(field, spelled, said.parse(spelled, given) if said.parse is not None else given)
