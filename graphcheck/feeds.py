"""What the command line runs beside ``compare``: inputs from a loader script, saved inputs and outputs, tolerances."""

from __future__ import annotations

import dataclasses
import itertools
import math
import runpy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphcheck.errors import GraphcheckError, UsageError

if TYPE_CHECKING:
    from graphcheck.interface.ports import Interface, Pair
    from graphcheck.runs.numeric import NumericOptions, Run

Tolerances = dict[str, float]  # by output name; "" is for all others


@dataclasses.dataclass(frozen=True)
class Wishes:
    """What to do with the runs. Empty tolerances and ``top_k`` None gate nothing."""

    atol: Tolerances
    rtol: Tolerances
    top_k: int | None = None
    save_inputs: Path | None = None
    save_outputs: Path | None = None

    @property
    def gate(self) -> bool:
        """Whether the runs have a say in the exit code."""
        return bool(self.atol or self.rtol or self.top_k)

    @property
    def any(self) -> bool:
        """Whether there is anything to run for."""
        return self.gate or self.save_inputs is not None or self.save_outputs is not None


def wishes(
    atol: Iterable[str], rtol: Iterable[str], top_k: str | None, save_inputs: Path | None, save_outputs: Path | None
) -> Wishes:
    """The wishes of a command line; UsageError for a tolerance that is none."""
    tolerances = parse_tolerances("--atol", atol), parse_tolerances("--rtol", rtol)
    return Wishes(*tolerances, int(top_k) if top_k else None, save_inputs, save_outputs)


def parse_tolerances(option: str, texts: Iterable[str]) -> Tolerances:
    """Tolerances by output name from ``1e-3`` (name ``""``) and ``tokens:1e-3``."""
    found: Tolerances = {}
    for text in texts:
        name, _, value = text.rpartition(":")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not (math.isfinite(number) and number >= 0):
            raise UsageError(f"{option} takes a number of at least 0, such as 1e-3 or NAME:1e-3, not {text!r}")
        found[name] = number
    return found


def load_script(text: str, iterations: int | None) -> list[dict[str, Any]]:
    """The feeds (input name -> array) that ``FILE.py[:FUNCTION]`` yields; FUNCTION is ``load_data`` where not named."""
    path, _, function = text.partition(":") if ":" in Path(text).name else (text, "", "")
    name = function or "load_data"
    if not Path(path).is_file():
        raise UsageError(f"{path}: there is no such loader script")
    try:
        found = runpy.run_path(path).get(name)
        if not callable(found):
            raise UsageError(f"{path}: the loader script defines no function {name!r}")
        feeds = list(itertools.islice(found(), iterations))
    except GraphcheckError:
        raise
    except (Exception, SystemExit) as error:  # the script is the user's
        raise GraphcheckError(f"{path}: the loader script fails with {type(error).__name__}: {error}") from None
    if not feeds or not all(isinstance(feed, Mapping) for feed in feeds):
        raise UsageError(f"{path}: {name}() must yield mappings of input names to arrays, at least one")
    return [dict(feed) for feed in feeds]


def save_feed(feed: Mapping[str, Any], path: Path) -> Path:
    """``path``, after ``feed`` was written there as .npz."""
    import numpy as np

    from graphcheck.interface.inputs import save_npz

    save_npz(path, {name: np.asarray(value) for name, value in feed.items()})
    return path


def add_runs(
    data: dict[str, Any], a: Path, b: Path, paths: Sequence[Path], options: Mapping[str, Any], wishes: Wishes
) -> dict[str, Any] | None:
    """The ``tolerances`` key, added to the JSON ``data`` of a comparison together with the runs on ``paths[1:]``.

    ``options`` are those that ``compare`` got. None where nothing was to be gated; saves what is to be saved.
    """
    if not options["run"] or (len(paths) < 2 and not wishes.any):
        return None
    if data["interface"]["mismatches"] and not data["numeric"]:
        return None  # nothing can run
    from graphcheck.files import model as model_
    from graphcheck.interface.ports import pair_interfaces
    from graphcheck.runs.numeric import numeric

    interface = pair_interfaces(model_.read(a), model_.read(b), options["ignore_outputs"])
    _check(interface, wishes)
    plans = list(_plans(interface, paths, options))
    for plan in plans[1:]:
        more = numeric(a, b, interface, plan)
        data["numeric"]["runs"] += more["runs"]
        data["numeric"]["warnings"] += [text for text in more["warnings"] if text not in data["numeric"]["warnings"]]
    if not wishes.any:
        return None
    rows: dict[str, dict[str, Any]] = {}
    for number, run in enumerate(_runs(a, b, interface, plans)):
        if number == 0:
            _save(run, interface, wishes)
        for row in _judge(run, interface, wishes):
            known = rows.setdefault(row["output"], row)
            known["passed"] &= row["passed"]
            known["failing"] = max(known["failing"], row["failing"])
            known["ranked"] |= row["ranked"]
    if not wishes.gate:
        return None
    if wishes.top_k and not any(row["ranked"] for row in rows.values()):
        raise UsageError(f"--top-k {wishes.top_k}: no output has rows of more than {wishes.top_k} numbers to rank")
    passed = all(row["passed"] for row in rows.values())
    gate = {"atol": wishes.atol, "rtol": wishes.rtol, "top_k": wishes.top_k, "passed": passed}
    data["tolerances"] = gate | {"outputs": [{k: v for k, v in row.items() if k != "ranked"} for row in rows.values()]}
    return gate


def _check(interface: Interface, wishes: Wishes) -> None:
    """UsageError for tolerances of outputs that neither side has."""
    known = {port.name for pair in interface.outputs for port in pair.ports()}
    for option, named in (("--atol", wishes.atol), ("--rtol", wishes.rtol)):
        if unknown := [name for name in named if name and name not in known]:
            raise UsageError(f"{option}: no output is named {unknown[0]!r}; there are {', '.join(sorted(known))}")


def _asked(tolerances: Tolerances, pair: Pair) -> float:
    """The tolerance of an output, by either side's name."""
    return next((tolerances[port.name] for port in pair.ports() if port.name in tolerances), tolerances.get("", 0.0))


def _plans(interface: Interface, paths: Sequence[Path], options: Mapping[str, Any]) -> Iterator[NumericOptions]:
    """What to run: one plan for each file of inputs, or one for all drawn inputs."""
    from graphcheck.interface.inputs import load_npz
    from graphcheck.runs.numeric import NumericOptions

    common = {
        "level": options["numerics"],
        "seed": options["seed"],
        "iterations": options["iterations"],
        "shapes": options["shapes"],
        "ranges": tuple((name, *bounds) for name, bounds in options["ranges"].items()),
        "threads": options["threads"],
        "fail_fast": options["fail_fast"],
    }
    if "providers" in options:
        common["providers"] = options["providers"]
    for path in paths or (None,):
        yield NumericOptions(**common, inputs=None if path is None else load_npz(path, interface))


def _runs(a: Path, b: Path, interface: Interface, plans: Iterable[NumericOptions]) -> Iterator[Run]:
    from graphcheck.runs import numeric

    for plan in plans:
        yield from numeric.runs(a, b, interface, plan)


def _save(run: Run, interface: Interface, wishes: Wishes) -> None:
    from graphcheck.interface.inputs import save_npz

    if wishes.save_inputs is not None:
        save_npz(wishes.save_inputs, run.inputs)
    if wishes.save_outputs is not None:
        named = {}
        for pair in interface.outputs:
            for side, port, outputs in (("a", pair.a, run.a.outputs), ("b", pair.b, run.b.outputs)):
                if port is not None and pair.key in outputs:
                    named[f"{side}/{port.name}"] = outputs[pair.key]
        save_npz(wishes.save_outputs, named)


def _judge(run: Run, interface: Interface, wishes: Wishes) -> Iterator[dict[str, Any]]:
    """One row for each output pair of a run; ``failing`` counts the elements outside the tolerances."""
    import numpy as np

    from graphcheck.runs.statistics import compare_arrays

    for pair in interface.outputs:
        a, b = run.a.outputs.get(pair.key), run.b.outputs.get(pair.key)
        if a is None or b is None or a.shape != b.shape:
            yield {"output": pair.key, "passed": False, "failing": 0 if a is None else int(a.size), "ranked": True}
            continue
        failing = 0
        if (wishes.atol or wishes.rtol) and a.dtype.kind in "OSUT":
            failing = int(np.count_nonzero(a != b))
        elif wishes.atol or wishes.rtol:
            atol, rtol = _asked(wishes.atol, pair), _asked(wishes.rtol, pair)
            wide = np.complex128 if "c" in (a.dtype.kind, b.dtype.kind) else np.float64
            x, y = a.astype(wide), b.astype(wide)
            with np.errstate(invalid="ignore"):
                good = (np.abs(x - y) <= atol + rtol * np.abs(x)) | (x == y) | (np.isnan(x) & np.isnan(y))
            failing = int(np.count_nonzero(~good))
        top = (compare_arrays(a, b)["top_k"] or {}).get(str(wishes.top_k)) if wishes.top_k else 1.0
        yield {
            "output": pair.key,
            "passed": failing == 0 and top in (None, 1.0),
            "failing": failing,
            "ranked": top is not None,
        }
