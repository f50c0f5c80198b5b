"""What ``onnx_ir`` and ``onnx.reference`` import and graphcheck has no use for is loaded when a name of it is asked for.

``import onnx_ir`` imports sympy, a quarter of what ``compare`` of two small models takes, for arithmetic with symbolic dims,
which nothing here does; ``import onnx.reference.ops`` imports the module of every operator for the one function that looks
one up. While :func:`modules` is in force, an import of onnx_ir finds stand-ins in the places of sympy and of the module with
a table of its functions, one of onnx.reference.ops finds a stand-in of that list. They stay in the importer's own names and
pass every attribute on to the real module, imported then; ``sys.modules`` holds them no longer than that import lasts, so
that whoever else imports sympy, or a module of it, does so as ever. (:class:`importlib.util.LazyLoader` leaves the module
itself in ``sys.modules``: where ``import sympy.core`` is its first use, sympy.core is executed twice.)

It is for processes that are graphcheck's own, the command line and the workers of a sweep: ``import graphcheck`` does not
change how another program imports.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

# importer -> what is deferred there -> its functions that the importer takes by name
_DEFERRED: dict[str, dict[str, tuple[str, ...]]] = {
    "onnx_ir": {"sympy": (), "onnx_ir._symbolic_shapes": ()},
    "onnx.reference.ops": {"onnx.reference.ops._op_list": ("load_op",)},
}


class _StandIn(ModuleType):
    """A module by its name, with functions that load it when they are called."""

    def __init__(self, name: str, functions: Sequence[str]) -> None:
        super().__init__(name)
        for function in functions:
            setattr(self, function, functools.partial(self._call, function))

    def _call(self, function: str, *given: Any, **named: Any) -> Any:
        return getattr(importlib.import_module(self.__name__), function)(*given, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what tools ask of every module
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:  # the importer itself asks, while it is imported
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


class _Loader(importlib.abc.Loader):
    """Loads a module as ``loader`` does, among stand-ins for what is not loaded yet."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """As the loader does."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """As the loader does, which is the module's own from here on."""
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader
        deferred = _DEFERRED[module.__name__]
        stand_ins = {name: _StandIn(name, taken) for name, taken in deferred.items() if name not in sys.modules}
        sys.modules |= stand_ins
        try:
            self.loader.exec_module(module)
        finally:
            for name, stand_in in stand_ins.items():
                if sys.modules.get(name) is stand_in:
                    del sys.modules[name]


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the importers where Python's own finder does; what that does not find is left to the others."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec with :class:`_Loader`."""
        if fullname not in _DEFERRED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


@contextlib.contextmanager
def modules() -> Iterator[None]:
    """While it lasts, an import of onnx_ir does not load sympy, nor one of onnx.reference.ops every operator."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
