"""What is printed on no terminal is what rich would print there, which is loaded for terminals alone."""

from __future__ import annotations

import io
import re
import sys

import pytest

from graphcheck.formats.console import Terminal

LONG = "n" * 300


def printed(monkeypatch: pytest.MonkeyPatch, variable: tuple[str, str] | None) -> str:
    """All that a terminal can print, on a stream that is none; ``variable`` is one that rich reads."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    if variable is not None:
        monkeypatch.setenv(*variable)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    terminal = Terminal()
    terminal.verdict("proved", "the same function of [bold]x[/bold] :smile: \x1b[31mred http://a.b/c")
    terminal.verdict("novel", LONG)
    terminal.say()
    terminal.say("  two\nlines, and 名前 é ✓  ", "bold")
    terminal.say(LONG * 20, "dim")
    terminal.table(("name", "count"), [("a", "1"), (("[b]", "red"), "1,000")])
    terminal.table((), [(LONG, "x"), ("y", "")], 4)
    terminal.table(("none",), [])
    return stream.getvalue()


def test_plain_text_is_what_rich_prints_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = printed(monkeypatch, None)
    assert "[bold]x[/bold] :smile: \\x1b[31mred" in plain and "\n  [b]   1,000\n" in plain
    assert plain == printed(monkeypatch, ("TTY_COMPATIBLE", "0"))


def test_a_style_that_is_asked_for_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    styled = printed(monkeypatch, ("FORCE_COLOR", "1"))
    assert "\x1b[1;32m✓ proved\x1b[0m" in styled
    assert re.sub(r"\x1b\[[\d;]*m", "", styled) == printed(monkeypatch, None)


def test_a_quiet_terminal_prints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", stream := io.StringIO())
    terminal = Terminal(quiet=True)
    terminal.say("x")
    terminal.verdict("proved", "y")
    terminal.table(("z",), [("1",)])
    assert stream.getvalue() == ""


def test_progress_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    with Terminal().status("reading") as say, Terminal().progress("exporting", 2) as step:
        say("proving")
        step("a")
    assert stream.getvalue() == ""
