"""Options once: a field of a group is all that an option takes, and no option travels by its place."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import runpy
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import typer

import graphcheck
from graphcheck import cli, command_line, commands, options
from graphcheck.errors import ModelError, UsageError
from graphcheck.options import (
    AssertOptions,
    Blaming,
    Group,
    Guarding,
    ModuleOptions,
    Options,
    ProvedOptions,
    Required,
    RewriteOptions,
    Rewriting,
    Sweeping,
    Told,
    Twice,
    option,
)

ROOT = Path(__file__).parent.parent
GROUPS = (Required, ModuleOptions, AssertOptions, Told, Twice, ProvedOptions, Rewriting, Guarding, Sweeping, Blaming)
FIELDS = [(group, field) for group in GROUPS for field in dataclasses.fields(group)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class More(Options):
    """The options with one more."""

    every: tuple[str, ...] = option(
        (), "--every", of="compare", panel=options.OUT, metavar="SYMBOL", takes=str, repeatable=True,
        check=options.values.names, help="prove for every size of SYMBOL; repeatable",
    )


def show(options: Group) -> None:
    print(options.keywords())


def run(capsys: pytest.CaptureFixture[str], function: Any, *arguments: str) -> str:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(command_line.command(function))
    app(args=list(arguments), standalone_mode=False)
    return capsys.readouterr().out


def test_a_field_more_is_an_option_more(capsys: pytest.CaptureFixture[str]) -> None:
    """On the command line, in its help, in Python, in the docstring and in the table of the reference."""

    def compare(options: More) -> int:
        print(options.every, options.seed)
        return 0

    assert run(capsys, compare, "--every", "n", "--every", "m") == "('n', 'm') 0\n"
    assert "--every" in (told := run(capsys, compare, "--help")) and "prove for every size of SYMBOL" in told

    def apply(a: str, b: str, options: More) -> Any:
        """Does it.

        Args:
            options: Each a keyword.

        Returns: it.
        """
        return a, b, options.every

    for indented in (inspect.cleandoc(apply.__doc__ or ""), apply.__doc__):  # as Python 3.13 has it, and as 3.11
        apply.__doc__ = indented
        called = options.keywords(More)(apply)
        assert "\n    every: prove for every size of SYMBOL" in (called.__doc__ or "")
    assert called("a", "b", every=["n"]) == ("a", "b", ("n",))
    assert inspect.signature(called).parameters["every"].default == ()
    assert "`every`" in runpy.run_path(str(ROOT / "docs" / "hooks.py"))["keywords"](More)


def test_a_command_takes_the_options_that_name_it(capsys: pytest.CaptureFixture[str]) -> None:
    def guard(options: Options) -> int:
        show(options)
        return 0

    def demo(options: Options) -> int:
        show(options)
        return 0

    assert "'run': False" in run(capsys, guard, "--no-run") and "'run': True" in run(capsys, guard)
    assert "'seed': 7" in run(capsys, demo, "--seed", "7")
    with pytest.raises(Exception, match="No such option: --no-run"):
        run(capsys, demo, "--no-run")


@pytest.mark.parametrize(("group", "field"), FIELDS, ids=[f"{g.__name__}.{f.name}" for g, f in FIELDS])
def test_every_option_says_what_it_is(group: type[Group], field: dataclasses.Field[Any]) -> None:
    said = options.about(field)
    assert said.doc or said.help
    assert bool(said.names) == bool(said.of) and bool(said.names) == bool(said.help)
    default = re.search(r"\(default: ([\d.e-]+)\)", said.help)
    assert default is None or float(default[1]) == options.default_of(field)
    assert options.checked(field, field.name, options.default_of(field)) == options.default_of(field)


def test_the_nearest_keyword_is_named_and_none_is_positional() -> None:
    with pytest.raises(UsageError, match=r"compare\(\) has no option 'timeot'; did you mean 'timeout'\?"):
        graphcheck.compare("a", "b", timeot=3)
    with pytest.raises(UsageError, match=r"assert_equivalent\(\) has no option 'requires'; did you mean 'require'\?"):
        graphcheck.assert_equivalent("a", "b", requires="proved")
    with pytest.raises(TypeError, match="too many positional"):
        graphcheck.compare("a", "b", {})


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"timeout": 0}, "timeout takes seconds above 0, not 0"),
    ({"seed": -1}, "seed must be at least 0, not -1"),
    ({"error_probability": 2}, "the error probability must lie between 0 and 1, not 2"),
    ({"atol": -1}, "atol takes a number of at least 0"),
    ({"rtol": {"y": float("nan")}}, "not 'y:nan'"),
    ({"top_k": 3}, "top_k is one of 1, 5, not 3"),
    ({"numerics": "some"}, "numerics is one of quick, full, not 'some'"),
    ({"ignore_outputs": "y"}, "ignore_outputs takes a list, not 'y'"),
    ({"atol": 1, "run": False}, "need runs: not with --no-run"),
    ({"inputs": "x.npz", "data_loader_script": "x.py"}, "not both"),
]


@pytest.mark.parametrize(("given", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_wrong_value_is_refused_in_python_too(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        graphcheck.compare("a", "b", **given)


def test_rewrite_takes_the_options_of_its_check_and_of_its_group() -> None:
    with pytest.raises(UsageError, match=r"rewrite\(\) has no option 'sead'; did you mean 'seed'\?"):
        graphcheck.rewrite("a.onnx", sead=1)
    own = inspect.signature(graphcheck.rewrite).parameters
    fields = {field.name: options.default_of(field) for field in dataclasses.fields(ProvedOptions)}
    assert {name: given.default for name, given in own.items()} == {"model": inspect.Parameter.empty, "to": "conv", **fields}
    assert {field.name for field in dataclasses.fields(RewriteOptions)} < set(fields)
    for taken in (dict(zip(("model", "to"), ("no.onnx", "conv"), strict=True)), {"model": "no.onnx"}):
        with pytest.raises(ModelError, match=r"no\.onnx"):
            graphcheck.rewrite(**taken, pointwise=True, seed=1)


def test_none_stands_for_the_default() -> None:
    assert Options(shapes=None, providers=None, seed=None) == Options()  # type: ignore[arg-type]


NUMBER = re.compile(r"\b(int|float|bool)\b")


def parameters(source: str) -> dict[str, list[list[str]]]:
    """What may be given by its place to each function and class of a module, by name."""
    found: dict[str, list[list[str]]] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            made = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
            names = [each.target.id for each in node.body if isinstance(each, ast.AnnAssign)]  # type: ignore[union-attr]
            kept = "kw_only" in ast.dump(ast.Module(node.decorator_list, []))  # type: ignore[arg-type]
            names = [arg.arg for arg in made[0].args.args[1:]] if made else [] if kept else names
            found.setdefault(node.name, []).append(names)
        elif isinstance(node, ast.FunctionDef):
            names = [arg.arg for arg in node.args.posonlyargs + node.args.args]
            found.setdefault(node.name, []).append(names[names[:1] in (["self"], ["cls"]) :])
    return found


def by_place(source: str, known: dict[str, list[list[str]]], named: set[str]) -> list[str]:
    """Calls that give two options or more by their places: of two numbers exchanged, no type checker tells."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and not any(isinstance(arg, ast.Starred) for arg in node.args):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            fitting = [names[: len(node.args)] for names in known.get(name, []) if len(names) >= len(node.args)]
            counts = [len(named.intersection(names)) for names in fitting]
            found += [f"{name}, line {node.lineno}"] if counts and min(counts) > 1 else []
    return found


def test_no_two_options_travel_by_their_places() -> None:
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "graphcheck").rglob("*.py")}
    known: dict[str, list[list[str]]] = {}
    for source in sources.values():
        for name, lists in parameters(source).items():
            known.setdefault(name, []).extend(lists)
    named = {field.name for _, field in FIELDS if NUMBER.search(str(field.type))}
    assert {"seed", "timeout", "threads", "run", "max_memory", "error_probability", "batch"} <= named
    found = {path.stem: calls for path, source in sources.items() if (calls := by_place(source, known, named))}
    assert found == {}


def test_two_options_by_their_places_are_seen() -> None:
    code = "def f(model, seed, timeout): ...\nclass C:\n    def __init__(self, threads, run): ...\n"
    calls = code + "f(m, 1, 2)\nf(m, 1, timeout=2)\nC(1, True)\n"
    named = {"seed", "timeout", "threads", "run"}
    assert by_place(calls, parameters(code), named) == ["f, line 4", "C, line 6"]


# What typer takes for an option, by the type of one value; each is taken by plain() too, alike.
TEXTS = {str: ["a", "-", "b=c", "ü x"], Path: ["p/q.json", "-"], int: ["3", "0"], float: ["2", "0.5", "1e-9"]}
ODD = ["1_0", "-3", "1e400", " 4", "0x1", "nan", "", "--json", "LAST", "True", "1" * 30]


def spelled(command: Any) -> Any:
    """Words for each option of a command: each value in both spellings, twice, with its flag, and what is odd."""
    for field, group in options_of(command):
        said, takes = options.about(field), command_line._takes(field, typing.get_type_hints(group)[field.name])
        for name in said.names:
            values = TEXTS.get(takes, [*typing.get_args(takes)])
            yield from ([name], [f"{name}="], [f"{name}=x"])
            for value in [*values, *ODD]:
                yield from ([name, value], [f"{name}={value}"], [name, value, name, *values[:1]], [f"{name}{value}"])


def options_of(command: Any) -> list[tuple[Any, Any]]:
    groups = command_line._parts(command, typer)[1].values()
    return [(field, group) for group in groups for field in command_line.fields_of(group, command.__name__)]


def typed(command: Any, words: Sequence[str]) -> Any:
    """What typer gives to a command; None where it refuses."""
    told: list[dict[str, Any]] = []
    with mock.patch.object(command_line, "called", lambda _, given: told.append(given)):
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command()(command_line.command(command))
        try:
            app(args=list(words), standalone_mode=False)
        except Exception as error:
            if "ClickException" not in [base.__name__ for base in type(error).__mro__]:
                raise
            return None
    return {name: value for name, value in told[0].items() if command_line.is_given(value)} if told else None


@pytest.mark.parametrize("command", [cli.analyze, commands.compare, commands.rewrite, cli.sweep])
def test_what_is_read_without_typer_is_what_typer_reads(command: Any) -> None:
    names = ["a.onnx", "b.onnx"] if command is commands.compare else ["a.onnx"]
    cases = [[], ["--help"], ["--", *names], ["--nothing", *names], [*names, "c"], ["-", *names[1:]], ["", *names[1:]]]
    cases += [[*names[:1], *words, *names[1:]] for words in spelled(command)]
    read = [command_line.plain(command, words) for words in cases]
    found = [(words, given) for words, given in zip(cases, read, strict=True) if given is not None]
    assert len(found) > 3 * len(options_of(command)) and read[:5] == [None] * 5
    for words, given in found[:: max(1, len(found) // 300)]:
        assert given == typed(command, words), words


def test_a_wrong_reading_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    read = command_line._read
    monkeypatch.setattr(command_line, "_read", lambda takes, text: read(takes, text.replace("-", "+")))
    with pytest.raises(AssertionError, match="--"):
        test_what_is_read_without_typer_is_what_typer_reads(commands.compare)


@pytest.mark.parametrize("command", [commands.guard, commands.blame, cli.demo, cli.export, cli.report])
def test_what_has_parameters_of_its_own_is_left_to_typer(command: Any) -> None:
    assert command_line.plain(command, ["a.onnx", "--json", "x"]) is None
