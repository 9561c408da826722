"""Facts about the things in a list: one command answers for the lists of several operations."""

from collections.abc import Collection
from typing import Any, ClassVar, Generic, TypeVar

T = TypeVar("T")


class OfList(Generic[T]):
    """A fact whose argument named `listed`, if it is the only one, may have more in it than one
    operation asks for: `part` then is the value that its own list would have given."""

    listed: ClassVar[str]

    @staticmethod
    def part(value: T, own: Collection[Any]) -> T:
        """The value for the things in `own`."""
        raise NotImplementedError
