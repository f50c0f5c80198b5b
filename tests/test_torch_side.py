"""A live module as a side: outputs by key, open dims, what the model refuses."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import onnx
import pytest

import graphcheck
from graphcheck import torch_side
from graphcheck.errors import UsageError
from graphcheck.verdict import Verdict

torch = pytest.importorskip("torch")


@dataclasses.dataclass
class Answer:
    z: Any
    a: Any


def net(kind: type) -> Any:
    class Net(torch.nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            z, a = self.first(x), torch.relu(self.second(x))
            return kind(z=z, a=a) if kind is not tuple else (z, a)

    return Net()


def exported(names: list[str], axes: dict[str, Any] | None = None) -> onnx.ModelProto:
    buffer = io.BytesIO()
    x = (torch.zeros(2, 4),)
    torch.onnx.export(
        net(tuple), x, buffer, dynamo=False, input_names=["x"], output_names=names, dynamic_axes=axes or {}
    )
    return onnx.load_model_from_string(buffer.getvalue())


@pytest.mark.parametrize("kind", [dict, Answer])
def test_outputs_by_name_may_come_in_any_order(kind: type) -> None:
    model = exported(["z", "a"])
    turned = list(model.graph.output)[::-1]
    del model.graph.output[:]
    model.graph.output.extend(turned)
    found = graphcheck.compare(net(kind), model, args=(torch.randn(2, 4),))
    rows = found.evidence["torch"]["outputs"]
    assert [row["output"] for row in rows] == ["a", "z"] and all(row["scale_ulp"] < 8 for row in rows)
    if kind is dict:
        assert found.verdict in (Verdict.PROVED, Verdict.IDENTICAL), found.reason
    else:  # no exporter takes a dataclass
        assert found.verdict is Verdict.UNDECIDED and "no fresh export" in found.reason
        assert found.reason.isprintable()


def test_outputs_under_each_others_names_are_different() -> None:
    found = graphcheck.compare(net(dict), exported(["a", "z"]), args=(torch.randn(2, 4),))
    assert found.verdict is Verdict.DIFFERENT, found.reason


def test_dims_that_the_model_leaves_open_are_proved_open() -> None:
    model = exported(["z", "a"], {"x": {0: "N"}})
    found = graphcheck.compare(net(tuple), model, kwargs=None, args=(torch.randn(5, 4),))
    assert found.verdict in (Verdict.PROVED, Verdict.IDENTICAL), found.reason
    assert found.verdict is Verdict.IDENTICAL or len(found.evidence["proof"]["shapes"]) > 1


def test_by_name_alone_and_not_at_all() -> None:
    model = exported(["z", "a"])
    assert graphcheck.compare(net(tuple), model, kwargs={"x": torch.randn(2, 4)}).verdict is not Verdict.DIFFERENT
    with pytest.raises(UsageError, match="on args"):
        graphcheck.compare(net(tuple), model)


def test_an_exported_program_is_a_model(tmp_path: Any) -> None:
    """``torch.onnx.export(..., dynamo=True)`` gives an ONNXProgram: nobody has to save it first."""
    module, args = torch.nn.Conv2d(3, 4, 2, 2).eval(), (torch.zeros(1, 3, 4, 4),)
    with torch_side._quiet():
        program = torch.onnx.export(module, args, dynamo=True)
    path = tmp_path / "m.onnx"
    onnx.save(program.model_proto, path)
    assert graphcheck.compare(program, path).verdict is Verdict.IDENTICAL
    assert graphcheck.compare(program, module, args=args).verdict.meets(Verdict.PROVED)
    assert [site.kernel_shape for site in graphcheck.analyze(program).sites] == [(2, 2)]
    rewritten = graphcheck.rewrite(program, "matmul")
    assert rewritten.changed and graphcheck.assert_equivalent(rewritten.model, program).verdict is Verdict.PROVED
    x = torch.ones(1, 3, 4, 4)
    tensors = {program.model.graph.inputs[0].name: x.numpy(), program.model.graph.outputs[0].name: module(x).detach().numpy()}
    assert str(graphcheck.blame(program, tensors).verdict) == "clean"
