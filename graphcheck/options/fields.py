"""What an option is: a field of a group that says its spelling, help, parser and check itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from graphcheck.errors import UsageError

WHAT, CLAIM, RUN = "What is done", "What is claimed", "What is run"
HOW, OUT = "How it is run", "What is written"
PANELS = (None, WHAT, CLAIM, RUN, HOW, OUT)  # in the order of --help


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """What a field says of itself.

    ``names`` are its spellings on the command lines ``of`` which it is an option; without any it is Python's alone.
    ``help`` is for ``--help``, ``doc`` for docstrings (None: the same). ``takes`` is the type of one value on the
    command line (None: that of the field), ``parse(name, given)`` makes the field's value of it, or of the list of them
    where the option is ``repeatable``. ``check(name, value)`` returns the value to keep. Both raise
    :class:`UsageError`. ``{formats}`` in ``help`` stands for the names in ``graphcheck.formats.FORMATS``.
    """

    names: tuple[str, ...] = ()
    of: tuple[str, ...] = ()
    help: str = ""
    doc: str | None = None
    panel: str | None = None
    metavar: str | None = None
    takes: Any = None
    repeatable: bool = False
    least: int | None = None
    parse: Callable[[str, Any], Any] | None = None
    check: Callable[[str, Any], Any] | None = None


def option(default: Any, *names: str, of: str = "", **said: Any) -> Any:
    """A field of a group; ``of`` names commands, separated by spaces, and the rest is as in :class:`Option`."""
    about = {"option": Option(names=names, of=tuple(of.split()), **said)}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata=about)
    return dataclasses.field(default=default, metadata=about)


G = TypeVar("G", bound="Group")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Options that go together. None stands for the default, and every value is checked."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None:
                value = default_of(field)
            object.__setattr__(self, field.name, checked(field, field.name, value))

    def keywords(self) -> dict[str, Any]:
        """The values by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def of(self, group: type[G]) -> G:
        """The options of a group that this one adds to."""
        return group(**{field.name: getattr(self, field.name) for field in dataclasses.fields(group)})


def about(field: dataclasses.Field[Any]) -> Option:
    """What a field of a group says of itself."""
    found: Option = field.metadata["option"]
    return found


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default of a field of a group."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def checked(field: dataclasses.Field[Any], name: str, value: Any) -> Any:
    """The value to keep of what was given for a field, called ``name``; raises :class:`UsageError`."""
    said = about(field)
    if value is None:
        return None
    if said.least is not None and value < said.least:
        raise UsageError(f"{name} must be at least {said.least}, not {value}")
    return said.check(name, value) if said.check is not None else value
