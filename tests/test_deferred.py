"""What is deferred is there for whoever asks, and is not loaded for nobody: what a process holds, never how long it took."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from graphcheck import deferred

ROOT = Path(__file__).parent.parent
# In a process of its own: what is loaded stays so.
HEAD = """
import sys
from graphcheck import deferred
def loaded(): return "sympy" in sys.modules
"""
IMPORT = "with deferred.modules():\n    import onnx_ir as ir\nassert not loaded()\n"


def fresh(code: str) -> None:
    run = subprocess.run([sys.executable, "-c", HEAD + code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_onnx_ir_imports_sympy_by_itself() -> None:
    """The reason for all this: once it fails, the module can go."""
    fresh("import onnx_ir\nassert loaded()")


def test_models_are_read_and_written_without_it() -> None:
    text = '<ir_version: 8, opset_import: ["": 18]> g (float[n,2] x) => (float[n,2] y) { y = Relu(x) }'
    fresh(
        f"{IMPORT}model = ir.from_onnx_text({text!r})\n"
        "assert ir.to_proto(model) and model.clone() and model.graph.inputs[0].shape[0] == 'n'\n"
        "assert not loaded() and 'onnx_ir._symbolic_shapes' not in sys.modules\n"
        "assert type(ir.__spec__.loader).__module__ == '_frozen_importlib_external' and ir.__spec__.loader is ir.__loader__"
    )


@pytest.mark.parametrize(
    "use",
    [
        "assert (ir.SymbolicDim('n') * 2 + 1).value == '2*n + 1'",
        "assert (ir.SymbolicDim('n') + 1).evaluate({'n': 4}) == 5",
        "assert ir.SymbolicDim('max(n, 3)').evaluate({'n': 4}) == 4",
        "import sympy\nassert ir.SymbolicDim(sympy.Symbol('n') + 1).value == 'n + 1'",
        "from onnx_ir import _symbolic_shapes as s\nimport sympy\nassert s.parse_symbolic_expression('n').func is sympy.Symbol",
        "import sympy.core.numbers\nassert sympy.core.numbers.Integer is sympy.Integer",
        "from sympy.polys import Poly\nimport sympy\nassert Poly is sympy.Poly and sympy.core.numbers",
        "import threading\nfound = []\nadd = lambda: found.append((ir.SymbolicDim('n') + 1).value)\n"
        "threads = [threading.Thread(target=add) for _ in range(8)]\nfor t in threads: t.start()\nfor t in threads: t.join()\n"
        "assert found == ['n + 1'] * 8",
    ],
)
def test_it_loads_once_it_is_used(use: str) -> None:
    fresh(f"{IMPORT}{use}\nassert loaded() and (ir.SymbolicDim('k') + 2).value == 'k + 2'")


def test_a_wrong_dim_is_told_as_ever() -> None:
    fresh(f"{IMPORT}try: ir.SymbolicDim(1.5)\nexcept TypeError as error: assert 'float' in str(error)\nelse: raise SystemExit(1)")


def test_what_is_loaded_already_stays() -> None:
    fresh(
        "import sympy\nfrom sympy import Symbol\nwith deferred.modules(): import onnx_ir as ir, sympy as again\n"
        "assert again is sympy is ir._core.sympy and again.Symbol is Symbol"
    )


def test_an_import_within_is_the_real_one() -> None:
    fresh("with deferred.modules():\n    import sympy, onnx_ir as ir\n    assert sympy.Symbol and ir._core.sympy is sympy")


def test_what_onnx_ir_uses_as_it_loads_is_loaded() -> None:
    """As another version of it may: without a stand-in for the module that makes a table of sympy's functions."""
    fresh(
        "deferred._DEFERRED = {'onnx_ir': {'sympy': ()}}\nwith deferred.modules(): import onnx_ir as ir\nimport sympy\n"
        "assert ir._symbolic_shapes.sympy.Max is sympy.Max and (ir.SymbolicDim('n') + 1).value == 'n + 1'"
    )


def test_without_sympy_there_is_no_arithmetic() -> None:
    fresh(f"{IMPORT}sys.modules['sympy'] = None\ntry: ir.SymbolicDim('n') + 1\n"
          "except ModuleNotFoundError as error: assert 'sympy' in str(error)\nelse: raise SystemExit(1)")  # fmt: skip


def test_nothing_is_left_behind() -> None:
    before = list(sys.meta_path)
    with deferred.modules():
        assert sys.meta_path != before and sys.meta_path[0].find_spec("json", None) is None
    assert sys.meta_path == before


LIST = "onnx.reference.ops._op_list"


def test_onnx_reference_imports_every_operator_by_itself() -> None:
    fresh(f"from graphcheck.kernel.ops import reference as r\nr.implementation('Slice', 13)\nassert {LIST!r} in sys.modules")


@pytest.mark.parametrize(("op_type", "loads"), [("Slice", False), ("TopK", True)])  # TopK's module is op_topk
def test_the_module_of_an_operator_is_loaded_alone_where_it_has_the_usual_name(op_type: str, loads: bool) -> None:
    fresh(
        "from graphcheck.kernel.ops.reference import implementation\n"
        f"with deferred.modules(): found = implementation({op_type!r}, 13)\n"
        f"assert ({LIST!r} in sys.modules) is {loads}\n"
        f"from onnx.reference.ops import _op_list\nassert found is _op_list.load_op('', {op_type!r}, 13)"
    )


def test_a_comparison_does_not_load_masked_arrays() -> None:
    """numpy's quantile and unique of plain arrays do, for nothing that they are."""
    text = '<ir_version: 8, opset_import: ["": 18]> g (float[2,4,4] x, float[4,3] w) => (float[2,4,3] y) {{ {} }}'
    left, right = (
        text.format(body)
        for body in ("t = Transpose<perm=[0,2,1]>(x) j = Concat<axis=2>(t, x) e = Einsum<equation=\"bij,jk->bik\">(x, w) "
                     "z = ReduceSum(j) y = Add(e, z)",
                     "t = Transpose<perm=[0,2,1]>(x) j = Concat<axis=1>(x, t) m = MatMul(x, w) z = ReduceSum(j) y = Add(z, m)")
    )  # fmt: skip
    fresh(
        f"import graphcheck, onnx\na, b = map(onnx.parser.parse_model, ({left!r}, {right!r}))\n"
        "found = graphcheck.compare(a, b)\nassert found.verdict == 'proved' and found.evidence['numeric']['runs'], found.reason\n"
        "assert 'numpy.ma' not in sys.modules"
    )
