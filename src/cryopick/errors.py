"""Every error cryopick raises on purpose, and the one sentence each of them prints.

    CryopickError
    ├── ParameterError   a value the user chose is out of its range (also a ValueError)
    ├── ShapeError       an array has other axes than the function needs (also a ValueError)
    ├── FormatError      the bytes of a file are not what its format says
    ├── TableError       a table lacks a column, or a column holds what it must not
    ├── DataError        an image or a set of picks cannot be worked on (NaN, constant, empty)
    ├── OutputError      a result cannot be written (read-only, full disk, already there)
    └── ProjectError     a project or job folder is in a state that forbids the step

A message is one sentence and one remedy: ``{what} must {rule}; got {value}. {remedy}``.
"""

from __future__ import annotations

__all__ = [
    "CryopickError",
    "DataError",
    "FormatError",
    "OtherJobError",
    "OutputError",
    "ParameterError",
    "ProjectError",
    "ShapeError",
    "TableError",
]


class CryopickError(Exception):
    """An error with a cause that the user can see and mend.

    Parameters
    ----------
    what
        The subject, in the user's own word: an option, a file, a column.
    must
        The rule it breaks, as it follows "must".
    got
        The value that was found.
    remedy
        What to do, as a full sentence without its final stop.

    Examples
    --------
    >>> print(ParameterError("box_size", must="be even", got="127 px", remedy="Try 128"))
    box_size must be even; got 127 px. Try 128.
    """

    def __init__(self, what: str, *, must: str, got: object, remedy: str) -> None:
        super().__init__(what, must, str(got), remedy)
        self.what = what
        self.must = must
        self.got = str(got)
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what} must {self.must}; got {self.got}. {self.remedy}."

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.must, self.got, self.remedy)


def _rebuild(
    kind: type[CryopickError], what: str, must: str, got: str, remedy: str
) -> CryopickError:
    return kind(what, must=must, got=got, remedy=remedy)


class ParameterError(CryopickError, ValueError):
    """A value the user chose is outside its range or contradicts another."""


class ShapeError(CryopickError, ValueError):
    """An array has other axes than the function needs."""


class FormatError(CryopickError):
    """The bytes of a file are not what its format says they are."""


class TableError(CryopickError):
    """A table lacks a column or a row, or a column holds what it must not."""


class DataError(CryopickError):
    """An image or a set of picks cannot be worked on."""


class OutputError(CryopickError):
    """A result cannot be written where it should go."""


class ProjectError(CryopickError):
    """A project or job folder is in a state that forbids the step."""


class OtherJobError(ProjectError):
    """A folder holds another job, or one with other parameters."""
