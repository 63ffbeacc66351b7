"""Which classes `select classes` keeps, and what it does to their particles."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, option

__all__ = ["MINIMUM_SCORE", "SelectClassesParameters", "parse_class_numbers"]

MINIMUM_SCORE: Final = 0.5
_MOST = 1_000_000  # a class number; a longer range is a slip of the keyboard
_NUMBERS = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True, kw_only=True)
class SelectClassesParameters(Parameters):
    """Selection of classes."""

    minimum_score: float | None = option(
        None,
        help="Keep classes whose score, from 0 (rubbish) to 1, is at least this; "
        f"{MINIMUM_SCORE:g} if nothing else is given that says what to keep.",
        minimum=0,
        maximum=1,
    )
    relative_threshold: float | None = option(
        None,
        help="Keep classes whose score is at least this share of the best one, instead of "
        "--minimum-score.",
        minimum=0,
        maximum=1,
    )
    minimum_particles: int = option(
        0,
        help="Add the next best classes until this many particles are kept.",
        minimum=0,
    )
    minimum_classes: int = option(
        0, help="Add the next best classes until this many are kept.", minimum=0
    )
    classes: str | None = option(
        None,
        help="Keep these classes, whatever their scores: numbers and ranges, such as 1,3,7-12.",
    )
    regroup: int | None = option(
        None,
        help="Join micrographs of like contrast to about this many groups of particles.",
        minimum=1,
    )
    recenter: bool = option(
        default=False,
        help="Move the centre of mass of each average to the middle, and its particles alike.",
    )

    @property
    def least_score(self) -> float:
        """The minimum score, given or not."""
        return MINIMUM_SCORE if self.minimum_score is None else self.minimum_score

    def to_dict(self) -> dict[str, Any]:
        """All values by name, ready for JSON; a minimum score that is in force is filled in."""
        is_in_force = self.classes is None and self.relative_threshold is None
        return super().to_dict() | ({"minimum_score": self.least_score} if is_in_force else {})

    def check_together(self) -> None:
        """Check that there is one rule for what is kept.

        Raises
        ------
        ParameterError
            If there are two thresholds, `classes` is no list of numbers, or there is a rule on
            scores or sizes as well.
        """
        if self.relative_threshold is not None and self.minimum_score is not None:
            raise ParameterError(
                "minimum_score",
                must="not come with --relative-threshold, which says what is kept",
                got=f"{self.minimum_score:g}",
                remedy="Leave out one of --relative-threshold and --minimum-score",
            )
        if self.classes is None:
            return
        parse_class_numbers(self.classes)
        self.require_no_rule("--classes")

    def require_no_rule(self, beside: str) -> None:
        """Refuse a rule on scores or sizes, where somebody has chosen the classes.

        Parameters
        ----------
        beside
            The option with the choice.

        Raises
        ------
        ParameterError
            If there is such a rule.
        """
        rules = {
            "minimum_score": self.minimum_score is not None,
            "relative_threshold": self.relative_threshold is not None,
            "minimum_particles": self.minimum_particles > 0,
            "minimum_classes": self.minimum_classes > 0,
        }
        for name, is_given in rules.items():
            if is_given:
                raise ParameterError(
                    name,
                    must=f"not come with {beside}, which says what is kept",
                    got=f"{getattr(self, name)}",
                    remedy=f"Leave out one of {beside} and --{name.replace('_', '-')}",
                )


def parse_class_numbers(text: str) -> tuple[int, ...]:
    """Read class numbers and ranges of them.

    Parameters
    ----------
    text
        Numbers from 1 and ranges, with commas between; spaces do not count.

    Returns
    -------
    tuple of int
        Each number once, in order of size.

    Raises
    ------
    ParameterError
        If it is something else.

    Examples
    --------
    >>> parse_class_numbers("7-9, 1,3,8")
    (1, 3, 7, 8, 9)
    """
    numbers: set[int] = set()
    for part in "".join(text.split()).split(","):
        match = _NUMBERS.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= _MOST:
            raise ParameterError(
                "classes",
                must="be numbers from 1 and ranges, such as 1,3,7-12",
                got=repr(part or text),
                remedy="Change --classes",
            )
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))
