"""``blame`` attacked: simulated devices on networks, honest ones and such with one fault.

    python benchmarks/devices.py [--nets NAME ...] [--devices WORD ...] [--faults WORD ...] [--places N] [--seed N] [--models DIR]
                                 [--honest] [--save FILE]

Honest: a row for each network, a column for each device, with what was convicted (0 of all is right), and how far the outputs
drift. Faults: for each kind, in how many runs the first to be convicted is the node, or a region that holds it, and in how many
what it looks like was said. A fault counts if some element is off by more than 64 roundings of the tensor's size. Networks are
exported by torch once and kept in DIR. Exits with 1 for a false conviction.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402
import onnx  # noqa: E402

from tests.zoo import device_nets  # noqa: E402
from tests.zoo.device_faults import FAULTS, places, seen  # noqa: E402
from tests.zoo.devices import DEVICES, Device, Executor, Run, node_name  # noqa: E402

_FAULTY = (
    "float32",
    "float16",
    "float16, fused",
    "float16, every third",
    "bfloat16",
    "tf32",
    "float16, summed in float16",
)
_UNITS = {"float32": 2.0**-24, "tf32": 2.0**-11, "float16": 2.0**-11, "bfloat16": 2.0**-8}


@dataclasses.dataclass(frozen=True)
class Net:
    """A network ready to be run."""

    name: str
    model: onnx.ModelProto
    executor: Executor
    feeds: dict[str, np.ndarray]


def nets(names: list[str], folder: Path, seed: int) -> Iterator[Net]:
    """Each network, its inputs drawn."""
    for name in names or list(device_nets.NETS):
        model = device_nets.net(name, folder)
        yield Net(name, model, Executor(model), device_nets.inputs(name, model, seed))


def judged(net: Net, on: Device, run: Run) -> Any:
    """What ``blame`` says of a run: of the precision that the device declares, the accumulator guessed where it says none."""
    import graphcheck

    accumulate = {"accumulate": on.accumulate} if on.accumulate else {}
    return graphcheck.blame(net.model, run.dump, precision=on.precision, **accumulate)


def drift(net: Net, run: Run, honest: Run) -> float:
    """How far the outputs are from those in float32, of their magnitude."""
    worst = 0.0
    for name in net.executor.outputs:
        x, y = (np.asarray(r.stored[name], np.float64) for r in (run, honest))
        if x.size and np.isfinite(x).all() and np.abs(y).max():
            worst = max(worst, float(np.abs(x - y).max() / np.abs(y).max()))
    return worst


def honest(net: Net, devices: list[Device]) -> Iterator[dict[str, Any]]:
    """A row for each device."""
    wide = net.executor.run(net.feeds, DEVICES[0])
    for on in devices:
        run = net.executor.run(net.feeds, on)
        start = time.process_time()
        found = judged(net, on, run)
        told = found.evidence
        yield {
            "net": net.name,
            "device": on.name,
            "dumped": len(run.dump),
            "drift": drift(net, run, wide),
            "verdict": str(found.verdict),
            "convicted": [row["node"] for row in told["convicted"]],
            "ratio": max((row["ratio"] for row in told["convicted"]), default=0.0),
            "suspect": len(told["suspect"]),
            "checked": told["checked"],
            "skipped": len(told["skipped"]),
            "unmatched": len(told["unmatched"]),
            "seconds": time.process_time() - start,
        }


def faulty(net: Net, devices: list[Device], faults: list[str], count: int, seed: int) -> Iterator[dict[str, Any]]:
    """A row for each fault that is one: at ``count`` places of the network, on one device after the other."""
    runs = {on.name: net.executor.run(net.feeds, on) for on in devices}
    for number, fault in enumerate(faults):
        for turn, place in enumerate(places(net.executor, fault, count, seed)):
            on = devices[(number + turn) % len(devices)]
            try:
                run = net.executor.run(net.feeds, on, place, FAULTS[fault][0], seed)
            except ValueError:
                continue
            output = next(n.output[0] for n in net.executor.nodes if node_name(n) == place)
            name = output if output in run.stored else _shown(net, output)
            if name not in run.stored or not seen(runs[on.name].stored, run.stored, name, _UNITS[on.precision]):
                continue
            found = judged(net, on, run)
            convicted = found.evidence["convicted"]
            first = convicted[0] if convicted else None
            yield {
                "net": net.name,
                "device": on.name,
                "fault": fault,
                "place": place,
                "verdict": str(found.verdict),
                "convicted": [row["node"] for row in convicted],
                "first": first and first["node"],
                "located": first is not None and (place in (first["node"], first["output"]) or place in _region(first)),
                "like": first and first["looks_like"] and first["looks_like"]["name"],
                "suspect": any(row["output"] == output for row in found.evidence["suspect"]),
            }


def _region(row: dict[str, Any]) -> list[str]:
    """The nodes of a region that was convicted."""
    return [part if isinstance(part, str) else part["node"] for part in row.get("region", [])]


def _shown(net: Net, name: str) -> str:
    """The first stored tensor that a result inside of a fused region goes to."""
    while net.executor.stays(name):
        name = net.executor.readers[name][0].output[0]
    return name


def table(rows: list[dict[str, Any]]) -> int:
    """Print what was found; the number of false convictions."""
    plain = [row for row in rows if "fault" not in row]
    wrong = [row for row in plain if row["convicted"]]
    for row in plain:
        mark = f"CONVICTED {row['convicted'][:3]} at {row['ratio']:.3g}" if row["convicted"] else row["verdict"]
        print(
            f"{row['net']:14} {row['device']:34} {mark}, drift {100 * row['drift']:.2g} %, checked {row['checked']} of "
            f"{row['dumped']}, suspect {row['suspect']}, skipped {row['skipped']}, {row['seconds']:.1f} s"
        )
    if plain:
        print(f"honest: {len(wrong)} convicted of {len(plain)} runs")
    planted = [row for row in rows if "fault" in row]
    kinds = Counter(row["fault"] for row in planted)
    for kind in kinds:
        of = [row for row in planted if row["fault"] == kind]
        like = Counter(row["like"] for row in of if row["like"])
        print(
            f"{kind:28} {len(of):3} planted, {sum(bool(r['convicted']) for r in of):3} convicted, "
            f"{sum(r['located'] for r in of):3} at the node, {sum(like.values()):3} explained {dict(like.most_common(2)) or ''}"
        )
    if planted:
        located = sum(row["located"] for row in planted)
        explained = {row["fault"] for row in planted if row["like"]}
        print(
            f"faults: {len(kinds)} kinds, {located} of {len(planted)} at the node ({100 * located / len(planted):.1f} %), "
            f"{len(explained)} kinds explained"
        )
    return len(wrong)


def main(arguments: list[str]) -> int:
    """The tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="*", default=[])
    parser.add_argument("--devices", nargs="*", default=[])
    parser.add_argument("--faults", nargs="*", default=[])
    parser.add_argument("--places", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", type=Path, default=Path("models/devices"))
    parser.add_argument("--honest", action="store_true", help="no faults")
    parser.add_argument("--planted", action="store_true", help="faults alone")
    parser.add_argument("--save", type=Path)
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    devices = [d for d in DEVICES if not given.devices or any(word == d.name for word in given.devices)]
    faults = [f for f in FAULTS if not given.faults or any(word in f for word in given.faults)]
    rows: list[dict[str, Any]] = []
    print(f"seed {given.seed}")
    for net in nets(given.nets, given.models, given.seed):
        parts: list[Iterator[dict[str, Any]]] = [] if given.planted else [honest(net, devices)]
        if not given.honest:
            chosen = [d for d in devices if given.devices or d.name in _FAULTY]
            parts.append(faulty(net, chosen, faults, given.places, given.seed))
        for part in parts:
            for row in part:
                rows.append(row)
                bad = row["convicted"] if "fault" not in row else not row["located"]
                print(f"  {net.name}: {row}" if bad else ".", end="\n" if bad else "", file=sys.stderr, flush=True)
        if given.save is not None:
            given.save.write_text(json.dumps({"seed": given.seed, "rows": rows}, indent=1))
    print(file=sys.stderr)
    return 1 if table(rows) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
