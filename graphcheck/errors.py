"""What can go wrong, as types: every message is one sentence that names the file, the node and the cause."""

from __future__ import annotations


class GraphcheckError(Exception):
    """Trouble that the user can act on; the command line prints its message and exits with code 2."""


class UsageError(GraphcheckError):
    """An option or argument has a value that is not allowed; the message says what is."""


class ModelError(GraphcheckError):
    """A model that cannot be read, or that is no valid ONNX.

    Attributes:
        path: The file, or ``"model"`` for one in memory.
        cause: A sentence without its full stop.
        node: The node that it happened at, or None.
    """

    def __init__(self, path: object, cause: str, node: str | None = None) -> None:
        self.path, self.cause, self.node = str(path), cause, node
        super().__init__(f"{self.path}: {f'node {node}: ' if node else ''}{cause}")


class UnknownFunction(GraphcheckError):
    """An operator was taught by an elementwise function that has no record: a mistake of who taught it, not of a model."""

    def __init__(self, function: str, op: str = "") -> None:
        self.function = function
        super().__init__(
            f"{op or 'an operator'} applies the elementwise function {function!r}, which has no record in "
            "graphcheck/kernel/terms/functions.py: add one, since nothing of it may be guessed"
        )


class Undecided(Exception):
    """What stopped an evaluation or a proof; becomes the reason of an ``undecided`` verdict, never a failure."""

    def __init__(self, reason: str, node: str | None = None) -> None:
        self.reason, self.node = reason, node
        super().__init__(reason)

    def __str__(self) -> str:  # the node is often found out later
        return f"{self.reason} (node {self.node})" if self.node else self.reason


class Refused(Undecided):
    """Sizes or values that the rules of an operator forbid: no runtime could evaluate the model there."""


class Untaught(Undecided):
    """An operator, or a use of one, that has no taught meaning: it is evaluated as an unknown function of its inputs."""


class Endless(Undecided):
    """A Loop or Scan of more steps than are followed; it may never end."""


class Oversized(Undecided):
    """A tensor that would be beyond the memory limit; it was not made."""


class Exhausted(Undecided):
    """A limit on time, memory or steps that ends the whole evaluation, not one node's."""
