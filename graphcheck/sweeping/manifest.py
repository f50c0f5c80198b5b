"""What to sweep over: the pairs or models that a manifest, a folder or two folders name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from graphcheck.errors import GraphcheckError, UsageError


@dataclasses.dataclass(frozen=True)
class Job:
    """A pair (``b`` given) or one model; ``problem`` says of which file why it cannot be looked at: trouble."""

    name: str
    a: Path
    b: Path | None = None
    problem: str | None = None


def read_jobs(source: Path, *, against: Path | None = None, pairs: bool = True) -> list[Job]:
    """The jobs that ``source`` names, in order, with unique names; pairs, or single models for ``pairs=False``.

    A folder with ``against``: each ``*.onnx`` below it as B, and as A its namesake there, the reference. A folder of
    ``graphcheck export`` (or its ``manifest.json``): the pairs known to be equal, or all its models. A JSON list:
    ``{"a", "b", "name"}`` each, or ``{"model", "name"}``; paths relative to the list. Raises GraphcheckError for what is
    none, or is empty.
    """
    if not source.exists():
        raise GraphcheckError(f"{source}: there is no such file or folder")
    if against is not None:
        jobs = _namesakes(source, against)
    elif source.is_dir():
        if pairs and not (source / "manifest.json").is_file():
            raise UsageError(
                f"{source}: has no manifest.json that says what to compare; give --against DIR, --guard COMMAND, "
                "--analyze or --rewrite TO"
            )
        jobs = _manifest(source / "manifest.json", pairs) if pairs else [_single(source, p) for p in _models(source)]
    elif source.suffix == ".onnx":
        if pairs:
            raise UsageError(f"{source}: is one model, and a comparison takes two; give a manifest or a folder")
        jobs = [Job(source.stem, source)]
    else:
        jobs = _manifest(source, pairs)
    if not jobs:
        raise GraphcheckError(f"{source}: names no {'pair' if pairs else 'model'} to look at")
    return _unique(jobs)


def part(jobs: Sequence[Job], which: int, count: int) -> list[Job]:
    """The ``which``-th of ``count`` parts: a job goes by its name, so that no other job moves it."""
    return [job for job in jobs if _number(job.name) % count == which - 1]


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:8], "big")


def _models(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.onnx") if path.is_file())


def _single(folder: Path, path: Path) -> Job:
    return Job(path.relative_to(folder).with_suffix("").as_posix(), path)


def _namesakes(source: Path, against: Path) -> list[Job]:
    for folder in (source, against):
        if not folder.is_dir():
            raise UsageError(f"{folder}: is not a folder; --against compares the models of two folders by name")
    names = sorted({path.relative_to(folder) for folder in (source, against) for path in _models(folder)})
    jobs = []
    for name in names:
        a, b = against / name, source / name
        there = {path: path.is_file() for path in (a, b)}
        present, absent = (
            next((p for p, is_there in there.items() if is_there is wanted), a) for wanted in (True, False)
        )
        problem = None if all(there.values()) else f"{present}: has no namesake in {absent.parent}"
        jobs.append(Job(name.with_suffix("").as_posix(), a, b, problem))
    return jobs


def _manifest(path: Path, pairs: bool) -> list[Job]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise GraphcheckError(f"{path}: is not a JSON manifest ({error})") from None
    except OSError as error:
        raise GraphcheckError(f"{path}: cannot be opened: {error.strerror}") from None
    if isinstance(data, list):
        return [_entry(path, i, entry, pairs) for i, entry in enumerate(data)]
    from graphcheck.exporting.manifest import FILE, read_manifest

    if path.name != FILE:
        raise GraphcheckError(f"{path}: is neither a JSON list of pairs nor the {FILE} of graphcheck export")
    files = {model.variant.name: path.parent / model.file for model in read_manifest(path.parent).models}
    if not pairs:
        return [Job(name, file) for name, file in files.items()]
    return [Job(f"{a} = {b}", files[a], files[b]) for a, b in _known_equal(path.parent) if b in files]


def _known_equal(folder: Path) -> Iterator[tuple[str, str]]:
    """Each unordered pair once."""
    from graphcheck.exporting.manifest import read_manifest

    seen = set()
    for model in read_manifest(folder).models:
        for other in model.variant.known_equal:
            if frozenset((model.variant.name, other)) not in seen:
                seen.add(frozenset((model.variant.name, other)))
                yield model.variant.name, other


def _entry(path: Path, at: int, entry: Any, pairs: bool) -> Job:
    keys = ("a", "b") if pairs else ("model",)
    if isinstance(entry, str) and not pairs:
        entry = {"model": entry}
    wrong = (
        not isinstance(entry, dict)
        or set(entry) - {*keys, "name"}
        or any(not isinstance(entry.get(key), str) for key in keys)
    )
    if wrong or not isinstance(entry.get("name", ""), str):
        shape = '{"a": FILE, "b": FILE, "name": TEXT}' if pairs else '{"model": FILE, "name": TEXT}'
        raise GraphcheckError(f"{path}: entry {at + 1} is not {shape}, its name being optional")
    files = [path.parent / entry[key] for key in keys]
    name = entry.get("name") or " / ".join(Path(entry[key]).with_suffix("").as_posix() for key in keys)
    return Job(name, files[0], files[1] if pairs else None)


def _unique(jobs: list[Job]) -> list[Job]:
    seen: Counter[str] = Counter()
    result = []
    for job in jobs:
        seen[job.name] += 1
        number = seen[job.name]
        result.append(job if number == 1 else dataclasses.replace(job, name=f"{job.name} ({number})"))
    return result
