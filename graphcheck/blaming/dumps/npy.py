"""A .npy, or a folder of them: each is a tensor, named by its path in the folder without the ending, and mapped."""

from __future__ import annotations

from pathlib import Path

from graphcheck.blaming.dumps.lazy import Entry, Tensors, mapped, npy_head, wrong

NAME = "npy"


def accepts(path: Path) -> bool:
    """Whether the path is a .npy, or a folder that holds one at any depth."""
    return path.suffix == ".npy" if path.is_file() else next(path.rglob("*.npy"), None) is not None


def read(path: Path) -> tuple[Tensors, list[str]]:
    """The tensors by name, and what there is to say."""
    folder = path if path.is_dir() else path.parent
    files = sorted(each for each in path.rglob("*.npy") if each.is_file()) if path.is_dir() else [path]
    entries = {}
    for each in files:
        name = each.relative_to(folder).as_posix().removesuffix(".npy")
        entries[name] = entry(each, name)
    others = sum(each.is_file() and each.suffix != ".npy" for each in path.rglob("*")) if path.is_dir() else 0
    return Tensors(entries), [f"{others} files of the folder are not .npy, and were left out"] if others else []


def entry(path: Path, name: str) -> Entry:
    """The tensor of one .npy."""
    try:
        with open(path, "rb") as file:
            shape, dtype, order = npy_head(file, path, name)
            begin = file.tell()
    except OSError as error:
        raise wrong(path, f"cannot be read ({error.strerror})", name) from None
    return mapped(path, name, shape, dtype, begin, order, exact=True)
