"""What came of one pair or model, and what many are worth."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from graphcheck.verdict import EXIT_DIFFERENT, EXIT_OK, EXIT_TROUBLE, EXIT_UNDECIDED, Comparison, Verdict

TROUBLE = "trouble"
ANALYZED, UNCHANGED = "analyzed", "unchanged"  # done, with nothing to prove
_FAILED = {"error": "GC103", "crash": "GC105", "lost": "GC105", "memory": "GC202", "timeout": "GC201", "check": "GC216"}
CLEAN, CONVICTED = "clean", "convicted"  # of a device's dump
FAILURES = ("error", "crash", "memory", "timeout", "lost", "check")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One result: ``status`` is a verdict (of blame too), ``analyzed``, ``unchanged`` (nothing to rewrite) or ``trouble``.

    ``failure`` says what kept it from an answer: ``error`` (a model or command that does not work), ``crash``,
    ``memory``, ``timeout``, ``lost`` (the worker died), ``check`` (a rewrite that failed its own check). ``seconds``
    is wall time, ``memory`` the peak in bytes, ``result`` the JSON of the command, ``known`` whether it is an old one,
    ``key`` that of the store, which has the whole ``result`` of an outcome that is only ``brief``; ``code`` is the family of
    the reason, and ``accepted`` whether ``--accept`` names it where less than is required was established.
    """

    name: str
    status: str
    reason: str
    failure: str | None = None
    a: str | None = None
    b: str | None = None
    seconds: float = 0.0
    memory: int = 0
    result: dict[str, Any] | None = None
    known: bool = False
    key: str | None = None
    code: str | None = None
    accepted: bool = False

    def accepting(self, require: Verdict, accept: Collection[str]) -> Outcome:
        """The outcome, marked where it is one of ``accept`` alone that lets it pass."""
        open_ = self.exit_code(require) == EXIT_UNDECIDED
        return dataclasses.replace(self, accepted=self.accepted or (open_ and self.exit_code(require, accept) == EXIT_OK))

    @property
    def why(self) -> str:
        """The reason, and that it was accepted, which makes no verdict stronger."""
        return f"{self.reason} (accepted by --accept {self.family})" if self.accepted else self.reason

    def brief(self) -> Outcome:
        """The outcome with what formats tell of its result: the graphs of a thousand pairs would fill the memory."""
        kept = ("schema", "code", "divergence", "witness", "output")
        result = self.result and {name: self.result[name] for name in kept if name in self.result}
        return dataclasses.replace(self, result=result)

    @property
    def family(self) -> str | None:
        """The code of the reason; None where there is nothing to explain."""
        return self.code or _FAILED.get(self.failure or "") or (self.result or {}).get("code")

    def exit_code(self, require: Verdict = Verdict.WITHIN_ROUNDING, accept: Collection[str] = ()) -> int:
        """The exit code that this result alone would give; what is weaker passes where its code is one of ``accept``."""
        if self.status in (Verdict.DIFFERENT, CONVICTED) or self.failure == "check":
            return EXIT_DIFFERENT
        if self.status == TROUBLE:
            return EXIT_TROUBLE
        done = self.status in (ANALYZED, UNCHANGED, CLEAN) or Verdict(self.status).meets(require)
        done = done or self.accepted or self.family in accept
        return EXIT_OK if done else EXIT_UNDECIDED

    def details(self, require: Verdict) -> str:
        """All that one needs to look further, one fact on a line."""
        required = f" (required: {require})" if self.exit_code(require) == EXIT_UNDECIDED else ""
        lines = [f"{self.status}: {self.why}{required}"]
        lines += [f"reason code: {self.family}"] if self.family else []
        lines += [f"{side}: {path}" for side, path in (("A", self.a), ("B", self.b)) if path]
        result = self.result or {}
        for side in "ba":
            if place := (result.get("divergence") or {}).get(side):
                lines.append(
                    f"first divergence in {side.upper()}: {place['op_type']} {place['node']} ({place['tensor']})"
                )
        if (result.get("witness") or {}).get("replay"):
            lines.append(f"replay: {result['witness']['replay']}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the result of the command."""
        row = dataclasses.asdict(dataclasses.replace(self, result=None, code=self.family))
        del row["result"]
        return row


def of(result: Outcome | Comparison | Mapping[str, Any]) -> Outcome:
    """The outcome of a comparison, or of the JSON of ``compare``, ``guard``, ``analyze``, ``rewrite`` or ``blame``."""
    if isinstance(result, Outcome):
        return result
    data = result.to_json() if isinstance(result, Comparison) else dict(result)
    sides = [(data.get(side) or {}).get("path") for side in ("a", "b")]
    if sides[1] == "{out}":  # guard's temporary file
        sides[1] = None
    model = data.get("model")
    model = model.get("path") if isinstance(model, Mapping) else model
    name = " / ".join(map(str, filter(None, (model, *sides)))) or "model"
    seconds = float((data.get("timings") or {}).get("total", 0.0))
    status, reason, failure = _status(data)
    return Outcome(name, status, reason, failure, sides[0] or model, sides[1], seconds, result=data)


def _status(data: Mapping[str, Any]) -> tuple[str, str, str | None]:
    if "patch_embeddings" in data:
        sites, left = data["patch_embeddings"], len(data["refusals"])
        ordinary = sum(bool(site.get("ordinary")) for site in sites)
        back = f"patch un-embeddings: {len(data['patch_unembeddings'])}, " if data.get("patch_unembeddings") else ""
        counts = f"patch embeddings: {len(sites) - ordinary}, {back}ordinary convolutions: {ordinary}, left alone: {left}"
        return ANALYZED, counts, None
    refused = _refused(data.get("refusals") or ())
    if data.get("verdict") is None:
        return UNCHANGED, f"{data.get('reason') or 'nothing to rewrite'}{refused}", None
    failed = [check for check in data.get("checks") or () if check["ok"] is False]
    if failed:
        return str(data["verdict"]), f"the rewrite failed its own check: {failed[0]['detail']}", "check"
    return str(data["verdict"]), f"{data['reason']}{refused}", None


def _refused(refusals: Sequence[Mapping[str, Any]]) -> str:
    """How many sites a rewrite left alone, by code, each with the first reason."""
    by: dict[str, list[str]] = {}
    for row in refusals:
        by.setdefault(str(row["code"]), []).append(str(row["reason"]))
    told = ", ".join(f"{len(reasons)} by {code} ({reasons[0]})" for code, reasons in by.items())
    return f"; refused: {told}" if told else ""


def exit_code(
    outcomes: Iterable[Outcome], require: Verdict = Verdict.WITHIN_ROUNDING, accept: Collection[str] = ()
) -> int:
    """The exit code of many: ``different`` wins over trouble, trouble over undecided, anything over 0.

    A refutation stays one, whatever else happened; and what could not be looked at weighs more than an open question.
    """
    codes = {outcome.exit_code(require, accept) for outcome in outcomes}
    return next((code for code in (EXIT_DIFFERENT, EXIT_TROUBLE, EXIT_UNDECIDED) if code in codes), EXIT_OK)


def tally(outcomes: Iterable[Outcome]) -> str:
    """How many came out how, the most frequent first: ``2 proved, 1 different``."""
    counts = Counter(outcome.status for outcome in outcomes)
    return ", ".join(f"{count} {status}" for status, count in counts.most_common()) or "no results"
