"""Every node test of onnx.backend.test as a device: what ONNX expects of an operator is never convicted."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from test_backend_nodes import CHUNKS, ROUNDED, array_of, cases

import graphcheck
from graphcheck.blaming.record import Guilt


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_onnx_expects_is_not_convicted(chunk: int) -> None:
    found: Counter[Guilt] = Counter()
    for name in list(cases())[chunk::CHUNKS]:
        case = cases()[name]
        given, expected = ([array_of(x) for x in part] for part in case.data_sets[0])
        ports = zip((*case.model.graph.input, *case.model.graph.output), (*given, *expected), strict=True)
        dumped = {port.name: x for port, x in ports if isinstance(x, np.ndarray) and x.dtype.kind not in "OUS"}
        if name in ROUNDED or not any(port.name in dumped for port in case.model.graph.output):
            continue
        result = graphcheck.blame(case.model, dumped)
        found[result.verdict] += 1
        assert result.verdict is not Guilt.CONVICTED, f"{name}: {result.reason}"
    assert found[Guilt.CLEAN] > 100
