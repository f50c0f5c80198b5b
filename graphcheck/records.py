"""Records that are made by the million: frozen dataclasses, but that the type checker alone keeps them so.

Setting each field past the guard of a frozen dataclass is two thirds of what making one takes, or more.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

__all__ = ["record"]

if TYPE_CHECKING:
    from dataclasses import dataclass as record
else:

    def record(*, frozen):
        """A decorator for a dataclass with slots, equality and a hash by its fields; ``frozen`` is for the type checker."""
        return dataclasses.dataclass(slots=True, unsafe_hash=frozen)
