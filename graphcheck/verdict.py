"""The five verdicts and the record that carries one with its evidence."""

from __future__ import annotations

import dataclasses
import enum
import functools
import importlib
from collections.abc import Collection
from typing import Any

SCHEMA = "graphcheck/compare/1"


class Verdict(enum.StrEnum):
    """How two models relate, strongest first; the value is the word used on the command line, in JSON and in Python.

    Attributes:
        IDENTICAL: The same graph up to names, order and storage, with bit-equal constants.
        PROVED: The same function in exact arithmetic over the stored constants, at the shapes named.
        WITHIN_ROUNDING: Proved, once constants that lie within their roundings are replaced by the other side's.
        UNDECIDED: Neither could be shown.
        DIFFERENT: An input shows it, or the interfaces do not fit.
    """

    IDENTICAL = "identical"
    PROVED = "proved"
    WITHIN_ROUNDING = "within-rounding"
    UNDECIDED = "undecided"
    DIFFERENT = "different"

    def meets(self, require: Verdict) -> bool:
        """Whether this verdict establishes the level ``require``; ``different`` and ``undecided`` establish none."""
        order = (Verdict.IDENTICAL, Verdict.PROVED, Verdict.WITHIN_ROUNDING)
        return self in order and order.index(self) <= order.index(require)


class Displayed:
    """What a notebook shows in place of its ``repr``."""

    def to_json(self) -> dict[str, Any]:
        """Plain data with its ``schema``."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        """HTML without scripts and addresses: the verdict, a table and a small picture."""
        # By its name: the report stands above all that it tells of, and only a notebook asks for it.
        return str(importlib.import_module("graphcheck.reporting.notebook").html(self.to_json()))


EXIT_OK, EXIT_DIFFERENT, EXIT_TROUBLE, EXIT_UNDECIDED = 0, 1, 2, 3


@dataclasses.dataclass(frozen=True)
class Comparison(Displayed):
    """The result of ``compare``: a verdict, the sentence that explains it, and everything that was seen.

    Attributes:
        verdict: One of five.
        reason: One sentence; it names the shapes and the error probability of a proof, and what stopped another.
        evidence: Plain data, as ``--json`` writes it. ``a``, ``b`` (summaries of the models), ``interface`` (the pairs
            of inputs and outputs), ``structure`` (what the graphs share), ``numeric`` (each run's deviations by output),
            ``proof`` (tiers, primes, error probability, assumptions), ``divergence`` (the first tensor without a
            partner), ``witness``, ``reduced``, ``graphs`` and ``alignment``, ``seed``, ``versions``, ``timings`` (seconds).
            What was not looked at is None.
        code: The family of the reason where the verdict is ``undecided`` or ``within-rounding``, such as ``GC204`` (see
            ``docs/reference/codes.md``); else None.
    """

    verdict: Verdict
    reason: str
    evidence: dict[str, Any] = dataclasses.field(repr=False)  # many pages
    code: str | None = None

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"

    def exit_code(self, require: Verdict = Verdict.WITHIN_ROUNDING, accept: Collection[str] = ()) -> int:
        """0 if ``require`` is established, or what is weaker has a code of ``accept``; 1 if ``different``, 3 otherwise."""
        if self.verdict is Verdict.DIFFERENT:
            return EXIT_DIFFERENT
        return EXIT_OK if self.verdict.meets(require) or self.code in accept else EXIT_UNDECIDED

    def to_json(self) -> dict[str, Any]:
        """The plain data that ``--json`` writes and ``report`` reads."""
        return {"schema": SCHEMA, "verdict": str(self.verdict), "reason": self.reason, "code": self.code, **self.evidence}


def ended(reason: str, code: str, a: str, b: str | None) -> Comparison:
    """``undecided``, with nothing known of the two files but why the comparison was ended."""
    nothing: dict[str, Any] = dict.fromkeys(
        ("structure", "numeric", "used", "proof", "precision", "divergence", "witness", "reduced", "graphs", "seed")
    )
    interface = {key: list[Any]() for key in ("inputs", "outputs", "notes", "mismatches")}
    told = {"a": {"path": a}, "b": {"path": b}, "interface": interface, "versions": {}, "timings": {}}
    told |= {key: [] for key in ("constants", "changed", "float64", "alignment")}
    told |= dict.fromkeys(("approximation", "hint", "branches"))
    return Comparison(Verdict.UNDECIDED, reason, {**nothing, **told}, code)


@functools.cache
def version(name: str) -> str | None:
    """The installed version of a package; None if it is not installed."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
