"""``manifest.json``: what an export wrote and what it could not, merged over runs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from graphcheck.errors import GraphcheckError
from graphcheck.exporting.catalogue import Variant
from graphcheck.files import atomic

SCHEMA = "graphcheck/manifest/1"
FILE = "manifest.json"


@dataclasses.dataclass(frozen=True)
class Exported:
    """A model that was written: its variant, its file name beside the manifest, size in bytes and SHA-256."""

    variant: Variant
    file: str
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Failure:
    """A model that could not be made: its variant and one sentence that says at which step and why."""

    variant: Variant
    error: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """All that lies in a folder of exported models, sorted by name, and the versions that wrote the latest of it."""

    models: tuple[Exported, ...] = ()
    failures: tuple[Failure, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()

    def merged(self, new: Manifest) -> Manifest:
        """This manifest with the entries of ``new`` in the place of those with the same name."""
        replaced = {model.variant.name for model in new.models} | {failure.variant.name for failure in new.failures}
        models = [entry for entry in self.models if entry.variant.name not in replaced]
        failures = [entry for entry in self.failures if entry.variant.name not in replaced]
        return Manifest(
            tuple(sorted((*models, *new.models), key=lambda entry: entry.variant.name)),
            tuple(sorted((*failures, *new.failures), key=lambda entry: entry.variant.name)),
            tuple(sorted({**dict(self.versions), **dict(new.versions)}.items())),
        )

    def to_json(self) -> dict[str, Any]:
        """The plain data of ``manifest.json``; a variant's fields stand beside its entry's own."""
        return {
            "schema": SCHEMA,
            "versions": dict(self.versions),
            "models": [_entry(m.variant) | {"file": m.file, "bytes": m.bytes, "sha256": m.sha256} for m in self.models],
            "failures": [_entry(f.variant) | {"error": f.error} for f in self.failures],
        }


def read_manifest(folder: Path) -> Manifest:
    """The manifest of ``folder``, empty if it has none; raises GraphcheckError for a file that is no manifest."""
    path = folder / FILE
    if not path.exists():
        return Manifest()
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise ValueError(f"its schema is {data['schema']!r}, expected {SCHEMA!r}")
        return Manifest(
            tuple(Exported(_variant(row), row["file"], row["bytes"], row["sha256"]) for row in data["models"]),
            tuple(Failure(_variant(row), row["error"]) for row in data["failures"]),
            tuple(sorted(data["versions"].items())),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GraphcheckError(
            f"{path}: not a manifest of graphcheck ({error!r}); move it away, then export again"
        ) from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes ``manifest`` into ``folder``, atomically."""
    atomic.write_bytes((json.dumps(manifest.to_json(), indent=1) + "\n").encode(), folder / FILE)


def _entry(variant: Variant) -> dict[str, Any]:
    return dataclasses.asdict(variant) | {
        "inputs": {name: list(shape) for name, shape in variant.inputs},
        "patch": variant.patch,
    }


def _variant(row: dict[str, Any]) -> Variant:
    fields = {field.name: row[field.name] for field in dataclasses.fields(Variant)}
    inputs = tuple((name, tuple(shape)) for name, shape in row["inputs"].items())
    return Variant(**fields | {"inputs": inputs, "known_equal": tuple(row["known_equal"])})
