"""Inputs for both models: drawn from a recorded seed, read from a file, saved so that anyone can replay them."""

from __future__ import annotations

import dataclasses
import io
import math
import os
import threading
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from graphcheck import limits
from graphcheck.errors import Undecided, UsageError
from graphcheck.files import atomic
from graphcheck.interface.ports import Interface, PortPair, Shapes

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

DISTRIBUTIONS = ("normal", "uniform", "one-hot", "constant", "extreme")
SIGNS = ("both", "positive", "negative")
INTEGERS = ("small", "binary", "wide")
_SMALL_INTEGERS = (1, 3)  # small enough for the ids of tiny vocabularies; 0 is the padding of many, so left out
_ENDS = 0.125  # so many of wide integers are the ends of their range
_MAX_RANK = 64  # of a numpy array
_EXTREME_DECADES = 6.0  # magnitudes of "extreme" lie this many decades around the scale


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """How inputs are drawn; with the shapes it determines them bit for bit.

    ``distribution``: ``normal`` with standard deviation ``scale``; ``uniform`` in [0, scale); ``one-hot``, ``scale`` at
    one place a sample and 0 elsewhere; ``constant``, ``scale`` everywhere; ``extreme``, magnitudes many decades around
    ``scale``. ``signs`` makes floats all positive or all negative. Zeros are replaced unless ``zeros``: too much is
    right by accident at 0. ``ranges`` are (name, low, high), name ``""`` for all others: such inputs are uniform in the
    range (``constant`` and ``one-hot`` are clipped to it). ``integers`` are ``small``, 1 to 3, ``binary``, 0 and 1, or
    ``wide``, over the range of their type as :func:`reach` gives it, its ends included; masks are 0 and 1, and booleans both.
    """

    seed: int = 0
    distribution: str = "normal"
    scale: float = 1.0
    signs: str = "both"
    zeros: bool = False
    integers: str = "small"
    ranges: tuple[tuple[str, float, float], ...] = ()

    def __post_init__(self) -> None:
        if self.distribution not in DISTRIBUTIONS:
            raise UsageError(f"there is no distribution {self.distribution!r}; there are {', '.join(DISTRIBUTIONS)}")
        if self.signs not in SIGNS:
            raise UsageError(f"signs are {', '.join(SIGNS)}, not {self.signs!r}")
        if self.integers not in INTEGERS:
            raise UsageError(f"integers are {', '.join(INTEGERS)}, not {self.integers!r}")
        if not (math.isfinite(self.scale) and self.scale > 0) or self.seed < 0:
            raise UsageError(f"scale must be above 0 and seed at least 0, not {self.scale} and {self.seed}")

    def to_json(self) -> dict[str, Any]:
        """Plain data that :meth:`from_json` turns back into the same spec."""
        return dataclasses.asdict(self) | {"ranges": [list(item) for item in self.ranges]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InputSpec:
        """The spec that ``to_json`` wrote; further keys (shapes, say) are left aside."""
        known = {field.name: data[field.name] for field in dataclasses.fields(cls) if field.name in data}
        known["ranges"] = tuple((str(n), float(low), float(high)) for n, low, high in known.get("ranges", ()))
        return cls(**known)


def check_ranges(interface: Interface, names: Iterable[str]) -> None:
    """:class:`UsageError` for a name that no input has on either side (``""`` stands for all)."""
    known = {port.name for pair in interface.inputs for port in pair.ports()}
    if unknown := [name for name in names if name and name not in known]:
        raise UsageError(f"no input is named {unknown[0]!r}; there are {', '.join(sorted(known)) or 'none'}")


def generate(interface: Interface, shapes: Shapes, spec: InputSpec) -> Arrays:
    """Inputs by :attr:`PortPair.key`, in A's dtype, with values that B's dtype holds exactly too.

    Each input has a stream of its own, from seed and position, so that one more input changes no other.
    """
    check_ranges(interface, [name for name, _, _ in spec.ranges])
    result: Arrays = {}
    for position, pair in enumerate(interface.inputs):
        rng = np.random.default_rng([spec.seed, position])
        limits.current().check_elements(math.prod(shapes[pair.key]), f"input {pair.key!r}")
        if len(shapes[pair.key]) > _MAX_RANK:
            raise Undecided(f"input {pair.key!r} has rank {len(shapes[pair.key])}, and numpy goes to {_MAX_RANK}")
        result[pair.key] = _draw(pair, shapes[pair.key], spec, rng)
    return result


def numbers(arrays: Mapping[str, Array]) -> dict[str, int | float | bool]:
    """The inputs of one element that are integers or booleans, such as a sampling rate: they choose what a model does."""
    return {name: array.item() for name, array in arrays.items() if array.size == 1 and array.dtype.kind in "iub"}


def leaves_of(inputs: Mapping[str, Array]) -> dict[tuple[str, str], Array]:
    """Inputs by the keys of their leaves, in float64; in float32 where they are, which costs no copy, and strings as they are."""
    return {
        ("input", name): x if x.dtype.kind in "OSUT" or x.dtype == np.float32 else x.astype(np.float64)
        for name, x in inputs.items()
    }


def side_inputs(interface: Interface, inputs: Mapping[str, Array]) -> tuple[Arrays, Arrays]:
    """What to feed to A and to B: under each side's names, cast to its declared dtypes."""
    sides: tuple[Arrays, Arrays] = ({}, {})
    for pair in interface.inputs:
        for feed, port in zip(sides, (pair.a, pair.b), strict=True):
            if port is not None:
                array, dtype = inputs[pair.key], port.numpy_dtype()
                array = array.real if array.dtype.kind == "c" != dtype.kind else array  # drawn so that nothing is lost
                feed[port.name] = array if array.dtype.kind in "OSUT" else array.astype(dtype, copy=False)
    return sides


def save_npz(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> None:
    """Write arrays as .npz, the same bytes for the same arrays (``numpy.savez`` also reserves the name ``file``)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                array = array.astype(str) if array.dtype.kind == "O" else array
                # ml_dtypes have no numpy format: their bits are written as opaque bytes, as numpy would.
                raw = array if array.dtype.isbuiltin == 1 else array.view(f"V{array.dtype.itemsize}")
                np.lib.format.write_array(file, raw, allow_pickle=False)
    atomic.write_bytes(buffer.getvalue(), path)


def load_npz(path: str | os.PathLike[str], interface: Interface) -> Arrays:
    """Inputs by :attr:`PortPair.key` from a .npz whose arrays bear the input names of either model.

    :class:`UsageError` where a name is missing or unknown, a dtype does not suit, or a model does not admit the shape.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise UsageError(
                f"{path}: holds one array without a name; numpy.savez(FILE, NAME=array) writes what is wanted, NAME being an "
                "input's"
            )
        with loaded as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file") from None
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise UsageError(f"{path}: is not a .npz file of plain arrays ({error})") from None
    return check_inputs(arrays, interface, str(path))


class Given:
    """The arrays of a .npz by the key of their pair, read when first asked for and once.

    The runs and the proof ask from two threads. numpy reads a header with ``ast.literal_eval``, which CPython before 3.12
    does not always survive in two threads at once (python/cpython#106905).
    """

    def __init__(self, path: str | os.PathLike[str], interface: Interface) -> None:
        self.path, self.interface = path, interface
        self._lock = threading.Lock()
        self._arrays: Arrays | None = None

    def __call__(self) -> Arrays:
        """The arrays; raises as :func:`load_npz` does, each time."""
        with self._lock:
            if self._arrays is None:
                self._arrays = load_npz(self.path, self.interface)
        return self._arrays


def check_inputs(arrays: Mapping[str, Array], interface: Interface, source: str = "inputs") -> Arrays:
    """Given arrays by :attr:`PortPair.key`; raises as :func:`load_npz` does, naming ``source``."""
    keys = {port.name: pair for pair in interface.inputs for port in pair.ports()}
    if unknown := [name for name in arrays if name not in keys]:
        raise UsageError(f"{source}: no input is named {unknown[0]!r}; there are {', '.join(keys) or 'none'}")
    given = {keys[name].key: array for name, array in arrays.items()}
    if missing := [pair.key for pair in interface.inputs if pair.key not in given]:
        raise UsageError(f"{source}: input {missing[0]!r} is missing")
    return {pair.key: _fits(given[pair.key], pair, source) for pair in interface.inputs}


def _fits(array: Array, pair: PortPair, source: str) -> Array:
    for port in pair.ports():
        declared = port.shape
        if declared is not None and (
            len(declared) != array.ndim
            or any(isinstance(dim, int) and dim != size for dim, size in zip(declared, array.shape, strict=True))
        ):
            shown = ["?" if dim is None else dim for dim in declared]
            raise UsageError(f"{source}: input {port.name!r} has shape {list(array.shape)}, the model takes {shown}")
    if array.dtype.kind in "OSUT":
        return array
    wanted = [port.numpy_dtype() for port in pair.ports()]
    if array.dtype.kind == "V" and array.dtype.itemsize == wanted[0].itemsize:
        return array.view(wanted[0])  # bfloat16 and float8, whose names .npz files do not know
    if array.dtype not in wanted:
        # A default numpy float64 for a float32 input is no mistake worth a stop, unless values are lost by it.
        exact = array.dtype.kind in "iub" or wanted[0].kind not in "iub"
        if array.dtype.kind == "V" or not exact:
            raise UsageError(f"{source}: input {pair.key!r} has dtype {array.dtype}, the model takes {wanted[0]}")
    return array.astype(wanted[0], copy=False)


def _draw(pair: PortPair, shape: tuple[int, ...], spec: InputSpec, rng: np.random.Generator) -> Array:
    ports = pair.ports()
    dtypes = [port.numpy_dtype() for port in ports]
    by_name = {name: (low, high) for name, low, high in spec.ranges}
    bounds = next((by_name[port.name] for port in ports if port.name in by_name), by_name.get(""))
    if any(dtype.kind == "O" for dtype in dtypes):
        if dtypes[0] != dtypes[-1]:
            raise UsageError(f"input {pair.key!r} is {ports[0].dtype} in A and {ports[-1].dtype} in B: no value is both")
        return np.asarray(rng.choice(np.asarray(WORDS, object), shape), object)
    if any(dtype.kind == "b" for dtype in dtypes):
        low, high = (0, 1) if bounds is None else (math.ceil(max(bounds[0], 0)), math.floor(min(bounds[1], 1)))
        if low > high:
            raise UsageError(f"there is no boolean between {bounds} for input {pair.key!r}")
        return rng.integers(low, high + 1, shape).astype(dtypes[0])
    if any(map(_is_integer, dtypes)):  # a float beside it gets whole numbers, as many as it holds
        return _integers(pair, shape, spec, rng, bounds).astype(dtypes[0])
    values = _floats(shape, spec, rng, bounds)
    if all(dtype.kind == "c" for dtype in dtypes):
        values = values + 1j * _floats(shape, spec, rng, bounds)
        return values.astype(dtypes[0])
    largest = min(_largest(dtype) for dtype in dtypes)
    values = np.clip(values, -largest, largest)
    for dtype in sorted({dtype for dtype in dtypes if dtype.kind != "c"}, key=lambda dtype: dtype.itemsize, reverse=True):
        values = values.astype(dtype)  # through every dtype, the narrowest last: then each side gets the same numbers
    if not spec.zeros and bounds is None and spec.distribution != "one-hot":
        values = np.where(
            values == 0,
            np.asarray(min(spec.scale, largest) * (-1 if spec.signs == "negative" else 1), values.dtype),
            values,
        )
    return values.astype(dtypes[0])


WORDS = ("", "a", "b", "1", "A b")  # what strings are drawn from


def _floats(
    shape: tuple[int, ...], spec: InputSpec, rng: np.random.Generator, bounds: tuple[float, float] | None
) -> Array:
    """Float64 values before any rounding; within ``bounds`` if there are any."""
    if bounds is not None and spec.distribution in ("normal", "uniform", "extreme"):
        return rng.uniform(bounds[0], bounds[1], shape)
    if spec.distribution == "normal":
        values = rng.standard_normal(shape) * spec.scale
    elif spec.distribution == "uniform":
        values = rng.random(shape) * spec.scale
    elif spec.distribution == "extreme":
        exponent = rng.uniform(-_EXTREME_DECADES, _EXTREME_DECADES, shape)
        values = rng.choice([-1.0, 1.0], shape) * spec.scale * 10.0**exponent
    elif spec.distribution == "constant":
        values = np.full(shape, spec.scale)
    else:
        values = np.zeros(shape)
        rows = values.reshape(shape[0] if shape else 1, -1)
        if rows.size:
            rows[np.arange(len(rows)), rng.integers(0, rows.shape[1], len(rows))] = spec.scale
    if spec.signs != "both":
        values = np.abs(values) if spec.signs == "positive" else -np.abs(values)
    return values if bounds is None else np.clip(values, *bounds)


def _integers(
    pair: PortPair, shape: tuple[int, ...], spec: InputSpec, rng: np.random.Generator, bounds: tuple[float, float] | None
) -> Array:
    low, high = _SMALL_INTEGERS
    if bounds is not None:
        low, high = math.ceil(bounds[0]), math.floor(bounds[1])
        if low > high:
            raise UsageError(f"there is no integer between {bounds[0]} and {bounds[1]} for input {pair.key!r}")
    elif any("mask" in port.name.lower() for port in pair.ports()):
        values = rng.integers(0, 2, shape)
        if values.ndim:
            values[..., 0] = 1  # a row that is masked everywhere is NaN in many models
        return values
    elif spec.integers == "wide":
        low, high = reach(*(port.numpy_dtype() for port in pair.ports()))
        values = rng.integers(low, high, shape, endpoint=True)
        return np.where(rng.random(shape) < _ENDS, rng.choice([low, high], shape), values)
    elif spec.integers == "binary":
        low, high = 0, 1
    elif spec.zeros:
        low = 0
    return rng.integers(low, high, shape, endpoint=True)


def reach(*dtypes: np.dtype[Any]) -> tuple[int, int]:
    """The least and the largest integer of all the types. Of int32 and int64 it is what can be multiplied without leaving
    the type, since proofs take those as unbounded; of uint64 what float64 holds; of a float its whole numbers without gaps."""
    ends = []
    for dtype in dtypes:
        if not _is_integer(dtype):
            high = min(2 ** (ml_dtypes.finfo(dtype).nmant + 1), int(_largest(dtype)))  # type: ignore[no-untyped-call]
            ends.append((-high, high))
            continue
        info = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
        low, high = int(info.min), int(info.max)
        if dtype.itemsize >= 4 and dtype.name != "uint32":
            high = 2 ** (4 * dtype.itemsize - (dtype.kind == "i")) - 1
            low = max(low, -high)
        ends.append((low, high))
    return max(low for low, _ in ends), min(high for _, high in ends)


def _is_integer(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iu" or dtype.name in ("int4", "uint4", "int2", "uint2")


def _largest(dtype: np.dtype[Any]) -> float:
    return float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]
