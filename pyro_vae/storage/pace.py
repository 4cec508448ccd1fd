"""How often to do again what takes time and is done anew each time."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic


class Pace:
    """Has something done so rarely that it takes a small share of the time.

    The first time is not counted, which takes longer than others, so that it is done twice at once.

    Args:
        share: Of all time, the largest that it may take.

    >>> import time
    >>> pace = Pace(share=0.001)
    >>> for _ in range(3):  # the third time would be ten seconds later
    ...     if pace.due():
    ...         with pace.taken():
    ...             time.sleep(0.01)
    ...             print("done")
    done
    done
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self._first = True
        self._next = 0.0

    def due(self) -> bool:
        """Whether it is time to do it."""
        return monotonic() >= self._next

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Around what is done."""
        start = monotonic()
        yield
        end = monotonic()
        if not self._first:
            self._next = end + (end - start) * (1 / self.share - 1)
        self._first = False
