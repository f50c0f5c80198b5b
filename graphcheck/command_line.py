"""The command line of a function, made from the groups of options that it takes.

What needs no more than to be told apart is read by :func:`plain`; typer, which takes longer to load than many a model to
analyze, is asked for the rest: help, mistakes and what is spelled otherwise.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from graphcheck import formats
from graphcheck.options import PANELS, Group, about, checked


@dataclasses.dataclass(frozen=True)
class Argument:
    """What stands in a place of its own, without a name."""

    metavar: str
    help: str


Model = Annotated[Path, Argument("MODEL", "an ONNX model")]
SideA = Annotated[Path, Argument("A", "an ONNX model, the reference")]
SideB = Annotated[Path, Argument("B", "the ONNX model to compare with it")]

Field = dataclasses.Field[Any]
_NUMBERS: dict[Any, str] = {int: r"\d{1,9}", float: r"\d+(\.\d+)?(e-?\d+)?"}


def command(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """``function`` as typer reads it: a parameter that is a group becomes those of its options that the command takes.

    The command is called by the function's name; what is not given keeps the default of its field.
    """
    import typer

    own, groups = _parts(function, typer)
    parameters = [_argument(parameter) for parameter in own]
    pairs = [(field, group) for group in groups.values() for field in fields_of(group, function.__name__)]
    pairs.sort(key=lambda pair: PANELS.index(about(pair[0]).panel))
    parameters += [parameter(field, _types(typing.cast(Any, group))[field.name]) for field, group in pairs]

    @functools.wraps(function)
    def call(**given: Any) -> int | None:
        return called(function, given)

    signature = inspect.Signature(parameters)
    call.__signature__ = signature  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    return call


def called(function: Callable[..., int | None], given: dict[str, Any]) -> int | None:
    """What the function of a command returns where its arguments, and the options of its groups, are given by name."""
    for name, group in _parts(function, sys.modules.get("typer"))[1].items():
        values = [(field, given.pop(field.name, None)) for field in fields_of(group, function.__name__)]
        given[name] = group(**{field.name: value_of(field, value) for field, value in values if is_given(value)})
    return function(**given)


def plain(function: Callable[..., int | None], words: Sequence[str]) -> dict[str, Any] | None:
    """What words of the command line give to a command, by name, as typer would give it; None where typer has to look."""
    if any("typer." in text for text in function.__annotations__.values()):
        return None
    own, groups = _parts(function, None)
    places = [parameter.name for parameter in own if typing.get_args(parameter.annotation)[0] is Path]
    known = {
        name: (field, group) for group in groups.values() for field in fields_of(group, function.__name__)
        for name in about(field).names
    }  # fmt: skip
    given: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        name, sign, text = word.partition("=") if word.startswith("--") else (word, "", "")
        if word and word[0] != "-" and len(given.keys() & {*places}) < len(places) == len(own):
            given[next(place for place in places if place not in given)] = Path(word)
            continue
        if name not in known:
            return None
        field, group = known[name]
        said, takes = about(field), _takes(field, _types(typing.cast(Any, group))[field.name])
        value = (None if sign else True) if takes is bool else _read(takes, text if sign else next(rest, ""))
        if value is None or (said.least is not None and value < said.least):
            return None
        given[field.name] = [*given.get(field.name, []), value] if said.repeatable else value
    return given if given.keys() >= {*places} and len(places) == len(own) else None


def _read(takes: Any, text: str) -> Any:
    """One value of an option; None where it is for typer to say what it is."""
    if not text or (text[0] == "-" and text != "-"):
        return None
    if takes in (str, Path):
        return takes(text)
    if takes in _NUMBERS:
        return takes(text) if re.fullmatch(_NUMBERS[takes], text) else None
    return text if typing.get_origin(takes) is typing.Literal and text in typing.get_args(takes) else None


def _parts(function: Callable[..., Any], typer: Any) -> tuple[list[inspect.Parameter], dict[str, type[Group]]]:
    """The parameters of a command that are no groups, with their types, and the groups by name."""
    hints = typing.get_type_hints(function, localns={"typer": typer}, include_extras=True)
    del hints["return"]
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and issubclass(hint, Group)}
    own = [p.replace(annotation=hints[p.name]) for p in inspect.signature(function).parameters.values()
           if p.name not in groups]  # fmt: skip
    return own, groups


def _argument(own: inspect.Parameter) -> inspect.Parameter:
    """A parameter as typer has it, of one that may be an :class:`Argument`."""
    import typer

    takes, said = typing.get_args(own.annotation)
    if not isinstance(said, Argument):
        return own
    declared = typer.Argument(metavar=said.metavar, help=said.help, show_default=False)
    return own.replace(annotation=Annotated[takes, declared])


@functools.cache
def _types(group: Any) -> dict[str, Any]:
    return typing.get_type_hints(group)


def fields_of(group: type[Group], command: str) -> list[Field]:
    """The options of a group that a command takes."""
    return [field for field in dataclasses.fields(group) if command in about(field).of]


def parameter(field: Field, kind: Any) -> inspect.Parameter:
    """An option of typer's; ``kind`` is the type of the field. What is not given is None, or False for a flag."""
    import typer

    said, takes = about(field), _takes(field, kind)
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


def _takes(field: Field, kind: Any) -> Any:
    """The type of one value on the command line; ``kind`` is that of the field."""
    takes = about(field).takes or kind
    others = [each for each in typing.get_args(takes) if each is not types.NoneType]
    return others[0] if isinstance(takes, types.UnionType) and len(others) == 1 else takes


def is_given(value: Any) -> bool:
    """Whether an option stands on the command line: typer gives None, False or an empty list for one that does not."""
    return value is not None and value is not False and value != []


def value_of(field: Field, given: Any) -> Any:
    """What the field holds of what was given; the sentence of a wrong value calls the option as it is spelled."""
    said, spelled = about(field), about(field).names[-1]
    if given is True:  # --no-run turns off what is on
        return not field.default
    return checked(field, spelled, said.parse(spelled, given) if said.parse is not None else given)
