"""What can go wrong, as types: every message is one sentence that names the file, the node and the cause."""

from __future__ import annotations


class GraphcheckError(Exception):
    """Trouble that the user can act on; the command line prints its message and exits with code 2.

    Attributes:
        code: The family of the reason, as ``docs/reference/codes.md`` has it.
    """

    code = "GC103"


class UsageError(GraphcheckError):
    """An option or argument has a value that is not allowed; the message says what is."""

    code = "GC101"


class ModelError(GraphcheckError):
    """A model that cannot be read, or that is no valid ONNX.

    Attributes:
        path: The file, or ``"model"`` for one in memory.
        cause: A sentence without its full stop.
        node: The node that it happened at, or None.
    """

    code = "GC102"

    def __init__(self, path: object, cause: str, node: str | None = None) -> None:
        self.path, self.cause, self.node = str(path), cause, node
        super().__init__(f"{self.path}: {f'node {node}: ' if node else ''}{cause}")


class UnknownFunction(GraphcheckError):
    """An operator was taught by an elementwise function that has no record: a mistake of who taught it, not of a model."""

    code = "GC104"

    def __init__(self, function: str, op: str = "") -> None:
        self.function = function
        super().__init__(
            f"{op or 'an operator'} applies the elementwise function {function!r}, which has no record in "
            "graphcheck/kernel/terms/functions.py: add one, since nothing of it may be guessed"
        )


class Undecided(Exception):
    """What stopped an evaluation or a proof; becomes the reason of an ``undecided`` verdict, never a failure.

    ``code`` is the family of the reason, that of the class unless another is given.
    """

    code = "GC208"

    def __init__(self, reason: str, node: str | None = None, code: str | None = None) -> None:
        self.reason, self.node = reason, node
        self.code = code or type(self).code
        super().__init__(reason)

    def __str__(self) -> str:  # the node is often found out later
        return f"{self.reason} (node {self.node})" if self.node else self.reason


class Refused(Undecided):
    """Sizes or values that the rules of an operator forbid: no runtime could evaluate the model there."""

    code = "GC207"


class Untaught(Undecided):
    """An operator, or a use of one, that has no taught meaning: it is evaluated as an unknown function of its inputs.

    ``shaped``: ONNX shape inference says the shape of what it gives.
    """

    code = "GC204"
    shaped = True


class Unshaped(Untaught):
    """The same, where the runtimes do not give the shape that ONNX shape inference says."""

    shaped = False


class Endless(Undecided):
    """A Loop or Scan of more steps than are followed; it may never end."""

    code = "GC203"


class Oversized(Undecided):
    """A tensor that would be beyond the memory limit; it was not made."""

    code = "GC202"


class Exhausted(Undecided):
    """A limit on time, memory or steps that ends the whole evaluation, not one node's."""

    code = "GC203"


class Late(Undecided):
    """The time is up."""

    code = "GC201"


class Random(Undecided):
    """An operator that draws numbers: no two runs are the same function."""

    code = "GC205"


class NotFinite(Undecided):
    """A NaN or an infinity where an operator's meaning depends on it."""

    code = "GC206"


class Improbable(Undecided):
    """A proof whose error probability would be above the target."""

    code = "GC209"
