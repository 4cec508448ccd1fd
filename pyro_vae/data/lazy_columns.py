"""Columns of words that are read anew at each use."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload


@dataclass(frozen=True, eq=False)
class LazyColumn(Sequence[str]):
    """A column of words, N of them, that are not held.

    Attributes:
        read: Gives them.
        length: N.

    >>> column = LazyColumn(lambda: ("a", "?", "c"), 3).without({"?"}).rows([1, 2])
    >>> len(column), list(column)
    (2, ['', 'c'])
    """

    read: Callable[[], Sequence[str]]
    length: int

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[str]:
        return iter(self.read())

    @overload
    def __getitem__(self, where: int) -> str: ...

    @overload
    def __getitem__(self, where: slice) -> Sequence[str]: ...

    def __getitem__(self, where: int | slice) -> str | Sequence[str]:
        return self.read()[where]

    def rows(self, index: Sequence[int]) -> "LazyColumn":
        """Some of the words."""

        def chosen() -> list[str]:
            words = self.read()
            return [words[row] for row in index]

        return LazyColumn(chosen, len(index))

    def without(self, missing: set[str]) -> "LazyColumn":
        """The column with "" in the place of some words."""
        return LazyColumn(lambda: ["" if word in missing else word for word in self.read()], self.length)
