"""Constants are the same where all their bytes are, and no digest has a say in it."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest

from graphcheck import Verdict, compare
from graphcheck.files import contents as contents_
from graphcheck.files.contents import Contents
from graphcheck.kernel.terms.rules import RULES
from graphcheck.kernel.terms.store import Terms

# Below and above the size that is compared as a whole, and that which a thread of its own looks at; not multiples of 64.
SIZES = [1, 4, 100, 1000, 1028, 70_001, 300_003]


@pytest.mark.parametrize("size", SIZES)
def test_equal_bytes_are_one_content(size: int) -> None:
    contents, array = Contents(), np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    spread = np.zeros(2 * size, np.uint8)
    spread[::2] = array
    same = [array, array.copy(), array.reshape(1, -1), spread[::2], array.view(np.int8), np.frombuffer(bytes(array), np.uint8)]
    assert len({contents.of(a) for a in same}) == 1


@pytest.mark.parametrize("size", SIZES)
def test_one_bit_at_any_place_is_another_content(size: int) -> None:
    """Also at places that the sample leaves out."""
    contents, rng = Contents(), np.random.default_rng(size)
    array = rng.integers(0, 256, size, dtype=np.uint8)
    found = {contents.of(array)}
    places = {0, size - 1, size // 2, *rng.integers(0, size, 20).tolist()}
    for place in places:
        other = array.copy()
        other[place] ^= 1
        found.add(contents.of(other))
        assert contents.of(other.copy()) in found
    assert len(found) == 1 + len(places)


def test_another_length_is_another_content() -> None:
    contents = Contents()
    assert len({contents.of(np.zeros(n, np.uint8)) for n in (0, 1, 1023, 1024, 1025, 70_000, 70_001)}) == 7


@pytest.mark.parametrize("threads", [1, 4])
def test_many_that_agree_where_they_are_sampled(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told apart by a digest before they are compared: each is compared with one other at most, and a few."""
    compared = []
    same = contents_._same
    monkeypatch.setattr(contents_, "_same", lambda a, b: compared.append(1) or same(a, b))
    monkeypatch.setattr(contents_, "_sample", lambda octets: b"")
    arrays = [np.full(20_000, i % 50, np.float32) for i in range(100)]
    contents = Contents()
    contents.ahead(arrays, threads)
    found = [contents.of(a) for a in arrays]
    assert len(set(found)) == 50 and found[:50] == found[50:] and len(compared) < 150


def test_a_digest_is_never_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all digests are the same, and all samples, bytes decide."""

    class Hash:
        def __init__(self, _: object) -> None:
            pass

        def digest(self) -> bytes:
            return bytes(32)

    monkeypatch.setattr(contents_.hashlib, "sha256", Hash)
    monkeypatch.setattr(contents_, "_sample", lambda octets: b"")
    contents = Contents()
    arrays = [np.full(2000, i % 20, np.int16) for i in range(40)]
    found = [contents.of(a) for a in arrays]
    assert len(set(found)) == 20 and found[:20] == found[20:]


def test_types_without_arithmetic_have_contents_and_objects_have_none() -> None:
    contents = Contents()
    array = np.arange(2000).astype(ml_dtypes.bfloat16)
    assert contents.of(array) == contents.of(array.copy()) != contents.of(array[::-1])
    for size in (3, 3000):
        with pytest.raises(TypeError):
            contents.of(np.array([1.5] * size, object))


def test_a_content_is_written_as_its_digest() -> None:
    """What a proof draws depends on it, not on the order in which constants were looked at."""
    array = np.arange(2000)
    first, second = Contents(), Contents()
    second.of(array[::-1])
    assert repr(first.of(array)) == repr(second.of(array)) and repr(first.of(array)).startswith("sha256:")


def save(path: Path, body: str, weight: np.ndarray) -> Path:
    text = f'<ir_version: 8, opset_import: ["": 18]> g (float[2,200] x) => (float[2,300] y) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    path.write_bytes(model.SerializeToString())
    return path


def test_congruence_alone_takes_no_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.random.default_rng(0).standard_normal((200, 300)).astype(np.float32)
    a = save(tmp_path / "a.onnx", "y = MatMul(x, w)", weight)
    b = save(tmp_path / "b.onnx", "z = MatMul(x, w) y = Identity(z)", weight)
    weight[7, 11] = np.nextafter(weight[7, 11], np.float32(9))
    other = save(tmp_path / "c.onnx", "y = MatMul(x, w)", weight)

    def taken(*_: object) -> None:
        raise AssertionError("a digest was taken")

    monkeypatch.setattr(contents_.hashlib, "sha256", taken)
    assert compare(a, a, run=False, graphs=False).verdict is Verdict.IDENTICAL
    result = compare(a, b, run=False, graphs=False)
    assert result.verdict is Verdict.PROVED and "by congruence alone" in result.reason
    assert result.evidence["proof"]["rests_on"].endswith("constants by their bytes")
    with pytest.raises(AssertionError, match="a digest was taken"):  # what is drawn depends on it
        compare(a, other, run=False, graphs=False)


def test_a_constant_is_moved_once_for_all_stores() -> None:
    contents, weight = Contents(), np.arange(120 * 200, dtype=np.float32)
    made = []
    for transposed in ((1, 0), (1, 0), (0, 1)):
        terms = Terms(RULES, contents=contents)
        turned = terms.move((terms.const(weight.copy()),), terms.maps.transpose((120, 200), transposed))
        assert np.array_equal(terms.arrays[turned], weight.reshape(120, 200).transpose(transposed).reshape(-1))
        made.append(terms.arrays[turned])
    assert np.shares_memory(made[0], made[1])
    assert not np.shares_memory(made[0], made[2])
