"""Results as JSON: written, read, and made plain."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphcheck.errors import GraphcheckError


def dumps(result: Any) -> str:
    """JSON text of a result; numbers that JSON lacks become null, as do those of numpy its own kinds."""
    return json.dumps(plain(result), ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def plain(value: Any) -> Any:
    """The value as JSON reads it back: lists, dicts by text, no numpy, null for what JSON lacks."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def write_json(result: dict[str, Any], target: str | None) -> None:
    """Write the result to a file, atomically, or to standard output for ``-``; nothing for None."""
    if target is not None:
        write_text(dumps(result), target)


def write_text(text: str, target: str) -> None:
    """Write a line to a file, atomically, or to standard output for ``-``."""
    if target == "-":
        print(text, flush=True)
    else:
        from graphcheck.files.atomic import write_bytes

        write_bytes(f"{text}\n".encode(), target)


def read_json(path: Path) -> dict[str, Any]:
    """A saved result; GraphcheckError for a file that is none."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GraphcheckError(f"{path}: there is no such file") from None
    except OSError as error:
        raise GraphcheckError(f"{path}: cannot be opened: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise GraphcheckError(f"{path}: is not a JSON result of graphcheck ({error})") from None
    if not isinstance(result, dict) or not str(result.get("schema", "")).startswith("graphcheck/"):
        raise GraphcheckError(f"{path}: is not a JSON result of graphcheck: its schema key is missing")
    return result


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """Plain data with names exchanged wherever they stand in a text."""
    if isinstance(value, str):
        for old, new in names.items():
            value = value.replace(old, new)
        return value
    if isinstance(value, dict):
        return {key: renamed(each, names) for key, each in value.items()}
    return [renamed(each, names) for each in value] if isinstance(value, list) else value
