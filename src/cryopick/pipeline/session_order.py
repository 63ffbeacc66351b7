"""Which micrographs a session begins when more of them wait than it can work on at once."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["NewestFirst"]


@dataclass(kw_only=True)
class NewestFirst:
    """Takes turns between the newest micrographs and those that have waited longest.

    What is begun ahead of its turn stays in the list of those that wait: the results are found
    there when their turn comes.

    Attributes
    ----------
    backlog
        Share of the micrographs that is taken from those that have waited longest, above 0; 1
        takes them in the order in which they came.
    """

    backlog: float
    _new: int = 0  # begun while others waited
    _old: int = 0
    _ahead: list[tuple[int, int]] = field(default_factory=list)  # first and stop, in order, apart

    def take(self, *, first: int, count: int, size: int) -> tuple[int, int] | None:
        """Choose what is begun next.

        Parameters
        ----------
        first
            Number of the micrograph that has waited longest.
        count
            Of all micrographs that are known.
        size
            How many are begun at once, at most.

        Returns
        -------
        tuple or None
            The first of the newest and where they stop; None where those that have waited longest
            are next.
        """
        self._ahead = [(max(a, first), b) for a, b in self._ahead if b > first]
        if count - first - sum(b - a for a, b in self._ahead) <= size:
            self._new = self._old = 0
            return None
        if self._new * self.backlog >= self._old * (1 - self.backlog):
            self._old += size
            return None
        stop = count
        if self._ahead and self._ahead[-1][1] == count:
            stop = self._ahead.pop()[0]
        floor = self._ahead[-1][1] if self._ahead else first
        start = max(floor, stop - size)
        self._new += stop - start
        touched = self._ahead.pop()[0] if self._ahead and self._ahead[-1][1] == start else start
        self._ahead.append((touched, count))
        return start, stop
