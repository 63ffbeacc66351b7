"""What a user can choose about a picture."""

from __future__ import annotations

from dataclasses import dataclass

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, option

__all__ = ["ShowParameters"]


@dataclass(frozen=True, kw_only=True)
class ShowParameters(Parameters):
    """Picture."""

    low_pass: float | None = option(
        None,
        help="Resolution to which images are filtered; 0 is off; if not given, 20 A for a "
        "micrograph and off for a stack.",
        unit="A",
        minimum=0,
    )
    longest_side: int = option(
        1600, help="Shrink a micrograph to this size.", unit="px", minimum=64, maximum=20000
    )
    max_images: int = option(
        100, help="Images of a stack to show, from the first one.", minimum=1, maximum=2500
    )
    columns: int = option(
        0, help="Images in a row; 0 makes the sheet nearly square.", minimum=0, maximum=200
    )
    diameter: float | None = option(
        None,
        help="Diameter of the circles where the picks have none; a thirtieth of the field's "
        "width if not given.",
        unit="A",
        above=0,
    )
    lowest_score: float | None = option(
        None,
        help="Score of a pick that is drawn in blue-green, as all below are; the lowest one if not "
        "given.",
    )
    highest_score: float | None = option(
        None,
        help="Score of a pick that is drawn in yellow, as all above are; that of the best fiftieth "
        "if not given.",
    )

    @property
    def score_limits(self) -> tuple[float | None, float | None]:
        """Scores at both ends of the colours."""
        return self.lowest_score, self.highest_score

    def check_together(self) -> None:
        """Check the order of the scores.

        Raises
        ------
        ParameterError
            If the highest is not above the lowest.
        """
        low, high = self.score_limits
        if low is not None and high is not None and not low < high:
            raise ParameterError(
                "highest_score",
                must=f"be above --lowest-score ({low:g})",
                got=f"{high:g}",
                remedy="Change --highest-score",
            )
