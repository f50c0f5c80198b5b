"""What is printed on no terminal is what rich would print there, which is loaded for terminals alone."""

from __future__ import annotations

import io
import re
import sys
import time
from pathlib import Path

import onnx
import pytest

from graphcheck.cli import main
from graphcheck.formats import heartbeat
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


def test_short_commands_are_silent_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    with Terminal().status("reading") as say, Terminal().progress("exporting", 2) as step:
        say("proving")
        step("a")
    assert stream.getvalue() == ""


def paced(monkeypatch: pytest.MonkeyPatch, silent: float, phase: float, minute: float) -> io.StringIO:
    """Standard error that is no terminal, where a heartbeat goes by these seconds."""
    for name, value in (("SILENT", silent), ("PHASE", phase), ("MINUTE", minute)):
        monkeypatch.setattr(heartbeat, name, value)
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    return stream


def wait_for(stream: io.StringIO, lines: int) -> list[str]:
    """What was said, without the seconds, once it has so many lines."""
    deadline = time.monotonic() + 20
    while stream.getvalue().count("\n") < lines and time.monotonic() < deadline:
        time.sleep(0.005)
    return [re.sub(r"^graphcheck: \d+ s: ", "", line) for line in stream.getvalue().splitlines()]


def test_a_long_command_says_each_phase_once_and_again_each_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = paced(monkeypatch, 0.05, 0.02, 1000.0)
    with Terminal(quiet=True).status("reading") as say:
        assert wait_for(stream, 1) == ["reading"]
        time.sleep(0.2)  # no second line of one phase within the minute
        say("proving\n\x1b[31m" + LONG)
        assert [line[:21] for line in wait_for(stream, 2)] == ["reading", "proving\\n\\x1b[31mnnnn"]
        assert len(stream.getvalue().splitlines()[1]) < 240
    stream = paced(monkeypatch, 0.02, 0.02, 0.1)
    with Terminal().status("reading"):
        assert wait_for(stream, 3) == ["reading"] * 3
    said = stream.getvalue()
    time.sleep(0.2)
    assert stream.getvalue() == said  # it ends with what it tells of


def test_a_status_inside_of_another_goes_on_in_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = paced(monkeypatch, 0.02, 0.02, 1000.0)
    terminal = Terminal()
    with terminal.status("rewriting"):
        wait_for(stream, 1)
        with terminal.status("reading") as say:
            wait_for(stream, 2)
            say("proving")
            assert wait_for(stream, 3) == ["rewriting", "reading", "proving"]


def test_a_long_progress_names_its_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = paced(monkeypatch, 0.2, 0.01, 0.05)
    with Terminal().progress("sweeping", 3) as step:
        step("a")
        step("b")
        assert wait_for(stream, 1) == ["sweeping: 2 of 3 (b)"]


def test_a_closed_standard_error_ends_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = paced(monkeypatch, 0.01, 0.01, 0.01)
    with Terminal().status("reading"):
        stream.close()
        time.sleep(0.1)


def test_a_comparison_tells_its_rungs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Relu(x) }')
    onnx.save(model, path := tmp_path / "m.onnx")
    stream = paced(monkeypatch, 0.0, 0.0005, 1000.0)
    assert main(["compare", str(path), str(path)]) == 0
    assert wait_for(stream, 1)[0] == "reading"
