"""The options of ``blame``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from graphcheck.options import values
from graphcheck.options.comparing import File
from graphcheck.options.fields import HOW, OUT, RUN, Group, option

PRECISIONS = ("float32", "tf32", "bfloat16", "float16", "int8")
ACCUMULATES = ("float32", "float16", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blaming(Group):
    """What :func:`graphcheck.blame` takes beside a model and a dump."""

    inputs: File | None = option(
        None, "--inputs", of="blame", panel=RUN, metavar="FILE.npz", takes=Path,
        help="the model's inputs, by name, where the dump does not hold them",
        doc="A dump of the model's inputs, where the other one does not hold them.",
    )
    precision: str | None = option(
        None, "--precision", of="blame", panel=RUN, metavar="FORMAT",
        takes=Literal["float32", "tf32", "bfloat16", "float16", "int8"], check=values.one_of(*PRECISIONS),
        help="what the device stores results in: float32, tf32, bfloat16, float16 or int8 (default: guessed from the dump)",
        doc="What the device stores results in: ``float32``, ``tf32`` (operands of products cut to 10 bits), ``bfloat16``, "
        "``float16`` or ``int8``; None guesses it from the types and numbers of the dump, and from the model's types.",
    )
    accumulate: str | None = option(
        None, "--accumulate", of="blame", panel=RUN, metavar="FORMAT", takes=Literal["float32", "float16", "bfloat16"],
        check=values.one_of(*ACCUMULATES),
        help="what it adds in within an operator: float32, float16 or bfloat16 (default: float32)",
        doc="What it adds in within an operator: ``float32`` (None), ``float16`` or ``bfloat16``.",
    )
    reduce: File | None = option(
        None, "--reduce", of="blame", panel=OUT, metavar="DIR", takes=Path,
        help="cut each convicted operator out, with what the device read and gave: DIR/NODE/model.onnx, inputs.npz, dumped.npz",
        doc="A folder for each convicted operator as a model of its own, with what the device read and gave.",
    )
    timeout: float = option(
        300.0, "--timeout", of="blame", panel=HOW, metavar="SECONDS", check=values.seconds,
        help="of the judging (default: 300)",
        doc="Seconds for the judging; what is not judged by then leaves it undecided.",
    )
    max_memory: int | None = option(
        None, "--max-memory", of="blame", panel=HOW, metavar="SIZE", takes=str, parse=values.parse_size,
        help="as 4G or 500M (default: three quarters of the machine)",
        doc="Bytes that it may take; None is three quarters of the machine's.",
    )
    progress: Callable[[str], None] | None = option(None, doc="Called with a few words at each step.")
