"""What the command line writes: JSON and HTML, all or nothing, to places that were looked at first."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from graphcheck.errors import GraphcheckError
from graphcheck.terminal import Terminal, safe


def check_targets(*targets: str | Path | None) -> None:
    """Raise GraphcheckError, before any work, for a file that could not be written in the end; ``-`` is none."""
    for target in targets:
        if target is None or target == "-":
            continue
        path = Path(target)
        if path.is_dir():
            raise GraphcheckError(f"{path}: is a directory, where a file is to be written")
        if not path.parent.is_dir():
            raise GraphcheckError(f"{path}: cannot be written, since there is no folder {path.parent}")


def dumps(result: Any) -> str:
    """JSON text of a result; numbers that JSON lacks become null, as do those of numpy its own kinds."""
    return json.dumps(_plain(result), ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def write_json(result: dict[str, Any], target: str | None) -> None:
    """Write the result to a file, atomically, or to standard output for ``-``; nothing for None."""
    if target == "-":
        print(dumps(result), flush=True)
    elif target is not None:
        from graphcheck.model import write_bytes

        write_bytes((dumps(result) + "\n").encode(), target)


def write_all(result: dict[str, Any], target: str | None, report: Path | None, terminal: Terminal) -> None:
    """The JSON and the HTML report of one result."""
    if report is not None:
        from graphcheck import reporting

        reporting.write([json.loads(dumps(result))], report)
        terminal.say(f"wrote {safe(report)}")
    write_json(result, target)


def read_json(path: Path) -> dict[str, Any]:
    """A saved result; GraphcheckError for a file that is none."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GraphcheckError(f"{path}: there is no such file") from None
    except OSError as error:
        raise GraphcheckError(f"{path}: cannot be opened: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise GraphcheckError(f"{path}: is no JSON result of graphcheck ({error})") from None
    if not isinstance(result, dict) or not str(result.get("schema", "")).startswith("graphcheck/"):
        raise GraphcheckError(f"{path}: is no JSON result of graphcheck: its schema key is missing")
    return result
