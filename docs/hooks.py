"""What mkdocs runs while it builds (``mkdocs.yml`` names this file): the commands' options, and names in docstrings."""

import dataclasses
import re
from typing import Any

PLACE = "<!-- commands -->"  # on docs/reference/commands.md
KEYWORDS = {"<!-- keywords -->": "AssertOptions", "<!-- rewrite keywords -->": "RewriteOptions"}  # on docs/reference/python.md


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with every command, option and keyword in the places that are left for them."""
    for place, group in KEYWORDS.items():
        if place in markdown:
            from graphcheck import options

            markdown = markdown.replace(place, keywords(getattr(options, group)))
    return markdown.replace(PLACE, commands()) if PLACE in markdown else markdown


def on_page_content(html: str, **_: Any) -> str:
    """The page without the roles of reStructuredText: ``:func:`name``` reads as the name."""
    return re.sub(r":(?:attr|class|func|meth|mod):(?=<code>)", "", html)


def keywords(group: Any) -> str:
    """Markdown of a group of options: a table of the keywords, their types, defaults and meanings."""
    from graphcheck.options import about, default_of

    lines = ["| keyword | type | default | |", "|---|---|---|---|"]
    for field in dataclasses.fields(group):
        kind = str(field.type).replace("|", "&#124;")
        text = (about(field).doc or about(field).help).replace("|", "&#124;")
        lines.append(f"| `{field.name}` | <code>{kind}</code> | `{default_of(field)!r}` | {text} |")
    return "\n".join(lines)


def commands() -> str:
    """Markdown of all commands: what each does, its arguments, and a table of its options; as ``--help`` says it."""
    import typer

    from graphcheck.cli import app

    group: Any = typer.main.get_command(app())
    return "\n".join(line for name, command in group.commands.items() for line in _command(name, command))


def _command(name: str, command: Any) -> list[str]:
    arguments = [one for one in command.params if not one.opts[0].startswith("-")]
    options = [one for one in command.params if one.opts[0].startswith("-")]
    usage = " ".join(["graphcheck", name, "[OPTIONS]", *(one.metavar for one in arguments)])
    example = command.epilog.removeprefix("Example: ")
    lines = [f"## {name}", "", f"    {usage}", f"    {example}", "", re.sub(r"\s*\n\s*", " ", command.help), ""]
    lines += [f"- `{one.metavar}`: {one.help}" for one in arguments]
    lines += ["", "| option | |", "|---|---|"]
    return [*lines, *map(_row, sorted(options, key=lambda one: str(one.rich_help_panel or ""))), ""]


def _row(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in option.opts)
    value = f" <code>{option.metavar.replace('|', '&#124;')}</code>" if option.metavar else ""  # | ends a cell
    default = f" (default: {option.default})" if option.show_default and option.default not in (None, False) else ""
    return f"| {names}{value} | {option.help}{default} |"
