"""One row of the rewriter's tables: which sites of a kind are recognised in a model, the forms reached, verdicts, and back."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.files.model import node_name
from graphcheck.patches.analyze import Analyzed
from graphcheck.patches.contraction import contractions
from graphcheck.patches.preparing import prepared
from graphcheck.patches.shuffles import Shuffle, find_shuffles
from graphcheck.patches.site import Analysis, Site
from graphcheck.patches.trace import trials
from graphcheck.rewriting import movement
from graphcheck.rewriting.builder import RULE
from graphcheck.rewriting.common import dense_weight
from graphcheck.rewriting.forms import FORMS, UNEMBEDDED, forms_of
from graphcheck.rewriting.proving import NO_KERNEL
from graphcheck.rewriting.result import Rewrite
from graphcheck.rewriting.rewrite import rewrite
from graphcheck.verdict import Comparison
from graphcheck.verdicts.compare import compare

REACHED = ("identical", "proved", "proved, not run")
THERE, NO, NO_WAY_BACK = "there", "no", "no way"  # so already; refused; the original's form is none that can be written
MOVEMENT = "movement"


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a row is of: the forms, which of the sites that are found are meant, and what the rewriter is asked for."""

    forms: tuple[str, ...]
    sites: Callable[[Analysis], Sequence[Site]]
    options: dict[str, bool] = dataclasses.field(default_factory=dict)

    def look(self, model: ir.Model) -> Analyzed:
        """The model analyzed for this kind of site."""
        return prepared(model, pointwise="pointwise" in self.options)


def _embeddings(found: Analysis) -> Sequence[Site]:
    """Where there is none but ordinary Convs, the first of them."""
    return [site for site in found.sites if not site.ordinary] or found.sites[:1]


KINDS = {
    "embeddings": Kind(tuple(FORMS), _embeddings),
    "un-embeddings": Kind(tuple(UNEMBEDDED), lambda found: found.unembeddings),
    "pointwise": Kind(
        ("conv", "matmul"), lambda found: [site for site in found.sites if site.pointwise], {"pointwise": True}
    ),
    "ordinary": Kind(tuple(FORMS), lambda found: [site for site in found.sites if site.ordinary], {"ordinary": True}),
    MOVEMENT: Kind(movement.FORMS, lambda found: (), {"movement": True}),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """What came of one form.

    Attributes:
        said: The verdict against the original; ``there``: it is so already; ``no``: refused.
        back: That of the way back to the forms of the original, against the original too; None where nobody went.
        written: How many sites were written so.
        refused: How many reasons were given why others were not.
        same: How many of those written have in the end the weight and the bias that they had, bit for bit; of movement, how
            many where no number in onnxruntime is another one (None where the model adds, which may be in another order).
    """

    said: str
    back: str | None = None
    written: int = 0
    refused: int = 0
    same: int | None = None

    @property
    def right(self) -> bool:
        """Whether all of it is proved, refused or there already, and no bit is another one in the end."""
        reached = self.said in (*REACHED, THERE, NO) and self.back in (*REACHED, NO_WAY_BACK, None)
        return reached and self.same in (self.written, None)

    def __str__(self) -> str:
        part = f" ({self.written}, {self.refused} refused)" if self.refused and self.written else ""
        back = "" if self.back in (self.said, None) else f"; back: {self.back}"
        return self.said + part + back + ("" if self.same in (self.written, None) else "; other bits")


@dataclasses.dataclass(frozen=True)
class Row:
    """A model's sites of one kind in words, each form's cell, and the refusals by reason.

    ``expected`` is what the words of the first site, or else those of a refusal, are to begin with: "" any site, None nothing
    at all. ``ulp`` is the largest deviation in onnxruntime, in ulps of the output's largest magnitude.
    """

    name: str
    kind: str
    sites: tuple[str, ...]
    recognised: int
    forms: dict[str, Cell]
    refusals: tuple[str, ...]
    ordinary: int
    expected: str | None
    ulp: float
    seconds: float

    @property
    def wrong(self) -> list[str]:
        """The cells that are not :attr:`Cell.right`, and what was to be seen and is not."""
        said = [f"{form}: {cell}" for form, cell in self.forms.items() if not cell.right]
        seen = self.sites[:1] or (self.refusals if self.expected else ())
        if self.expected is not None and not any(words.startswith(self.expected) for words in seen):
            said.insert(0, f"not {self.expected or 'a site'}, but {'; '.join(seen) or 'nothing'}")
        return [f"{self.name}: {self.kind}: {words}" for words in said]


def row(
    name: str, model: ir.Model, kind: str = "embeddings", *, expected: str | None = None, timeout: float = 120.0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Row:  # fmt: skip
    """Recognise, rewrite to each form and back to the original's, prove both against the original, run both."""
    start = time.perf_counter()
    what = KINDS[kind]
    seen = what.look(model)
    sites = what.sites(seen.analysis)
    shuffles, left = find_shuffles(seen.model, seen.runs) if kind == MOVEMENT else ([], [])
    meant = {n for site in sites for n in (site.name, site.blocker)} | {node_name(s.nodes[-1]) for s in shuffles}
    known = left if kind == MOVEMENT else () if what.options and sites else seen.analysis.refusals
    refusals = [refusal.reason for refusal in known]
    forms: dict[str, Cell] = {}
    attempt = _Attempts(model, what, timeout, shapes)
    for form in what.forms if sites or shuffles else ():
        result, said = attempt.form(model, form, [site.name for site in sites])
        new = [r.reason for r in result.refusals if r.node in meant and r not in (*seen.analysis.refusals, *left)]
        refusals += new
        written = len(result.moved if kind == MOVEMENT else result.applied)
        if not written:
            forms[form] = Cell(NO if new else THERE, refused=len(new))
            continue
        back, same = attempt.back(result) if result.changed else (None, None)
        forms[form] = Cell(said, back, written, len(new), same)
    words = [*map(said_of, sites), *map(_shuffled, shuffles)]
    ordinary = sum(site.ordinary for site in seen.analysis.sites)
    return Row(
        name, kind, tuple(dict.fromkeys(words)), len(words), forms, tuple(refusals), ordinary, expected, attempt.ulp,
        time.perf_counter() - start,
    )  # fmt: skip


class _Attempts:
    """Rewrites, each result proved against one model and run beside it."""

    def __init__(
        self, original: ir.Model, kind: Kind, timeout: float, shapes: Mapping[str, tuple[int, ...]] | None
    ) -> None:
        self.original, self.kind, self.ulp = original, kind, 0.0
        self.options: dict[str, Any] = {"graphs": False, "timeout": timeout, "threads": 1, "shapes": shapes}

    def form(self, model: ir.Model, form: str | Mapping[str, str], sites: Sequence[str]) -> tuple[Rewrite, str]:
        """``model`` in another form, or each site in one, and the verdict against the original in words."""
        result, said = self._rewrite(model, form, sites), ""
        if any(refusal.reason.code == NO_KERNEL for refusal in result.refusals):
            result, said = self._rewrite(model, form, sites, run=False), ", not run"
        if not result.changed or "BUT" in result.reason:
            return result, f"{result.verdict}: {result.reason}"
        return result, f"{result.verdict}{said}"

    def back(self, there: Rewrite) -> tuple[str, int | None]:
        """The verdict of the way back to the forms of the original, and how many sites came back with the same bits."""
        if there.moved:
            other = next(form for form in self.kind.forms if form != there.to)
            _, said = self.form(there.model, other, ())
            adds = bool(contractions(trials(self.original)))
            return said, len(there.moved) if self.ulp == 0.0 else None if adds else 0
        own, first = {_bits(a.site)[0]: a.site.form for a in there.applied}, there.applied[0].site.form
        found = self._new(there.model)
        if not any(_legal(a.site.form, a.site) for a in there.applied):
            return NO_WAY_BACK, alike(there, found) if found else None
        if not found:
            return "not recognised", 0
        legal = {site.name: form for site in found if _legal(form := own.get(_bits(site)[0], first), site)}
        if not legal:
            return NO_WAY_BACK, alike(there, found)
        result, said = self.form(there.model, legal, ())
        if not result.applied:  # the one MatMul of unfold and matmul, where windows slide
            return (said, 0) if result.refusals else ("proved", alike(there, found))
        return said, alike(there, self._new(result.model))

    def _new(self, model: ir.Model) -> list[Site]:
        """The sites that the rewriter wrote."""
        found = self.kind.look(model).analysis.everything
        return [site for site in found if RULE in site.node.metadata_props]

    def _rewrite(
        self, model: ir.Model, form: str | Mapping[str, str], sites: Sequence[str], *, run: bool = True
    ) -> Rewrite:
        def check(_: ir.Model, b: ir.Model) -> Comparison:
            found = compare(self.original, b, run=run, **self.options)
            runs = (found.evidence.get("numeric") or {"runs": []})["runs"]
            self.ulp = max([self.ulp, *(row["scale_ulp"] or 0.0 for run in runs for row in run["outputs"])])
            return found

        return rewrite(model, form, sites=sites, check=check, run=run, **self.kind.options)


def _legal(form: str, site: Site) -> bool:
    """Whether the rewriter can write it so."""
    forms = forms_of(site)
    return form in forms and forms[form].why_not(site) is None


def alike(there: Rewrite, back: Sequence[Site]) -> int:
    """How many of the sites that were written have the same weight and bias, bit for bit, among those that came back.

    Behind a factor the bias is no part of what came back: both are nodes of their own there. A Conv over patches that are
    flattened already is a dense layer as a MatMul, and then no site that could come back; its weight is the same.
    """
    left, dense = [_bits(site) for site in back], 0
    for site in (applied.site for applied in there.applied):
        weight, bias = _bits(site)
        found = next((pair for pair in left if pair[0] == weight and (pair[1] == bias or site.alpha != 1.0)), None)
        if found is not None:
            left.remove(found)
        else:
            dense += site.flattened and there.to == "matmul"
    return len(back) - len(left) + dense


def _bits(site: Site) -> tuple[bytes, bytes]:
    """The weight with zeros between groups, and the bias, if it adds anything."""
    index = dense_weight(site)
    weight = np.where(index < 0, np.zeros((), site.weight.dtype), site.weight.reshape(-1)[index])
    return weight.tobytes(), b"" if site.bias is None or not site.bias.any() else site.bias.tobytes()


def rewritten(model: ir.Model, to: str) -> ir.Model:
    """The model with all its sites in one form, not proved."""
    found = prepared(model).analysis
    return rewrite(model, to, sites=[s.name for s in found.sites]).model


def said_of(site: Site) -> str:
    """``conv 16x16/16`` with what is unusual: padding, groups, another layout than channels first."""
    kernel, stride = ("x".join(map(str, v)) for v in (site.kernel_shape, [a.stride for a in site.spatial]))
    more = [site.layout] if site.layout not in ("NCHW", "NCL", "NCDHW") else []
    more += ["padded"] if any(a.begin > 0 or a.end > 0 for a in site.spatial) else []
    more += [f"{site.groups} groups"] if site.groups > 1 else []
    more += ["flattened"] if site.flattened else []
    more += ["blocked"] if site.blocked is not None else []
    return " ".join([site.form, f"{kernel}/{stride}", *more])


def _shuffled(shuffle: Shuffle) -> str:
    """``reshape, depth-to-space 2x2``."""
    form = shuffle.operator if shuffle.is_operator else movement.RESHAPE
    return f"{form}, {shuffle.kind} {shuffle.block}x{shuffle.block}"
