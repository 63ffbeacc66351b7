"""What `select subset` keeps, and into how many tables it splits that."""

from __future__ import annotations

from dataclasses import dataclass

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, option

__all__ = ["SubsetParameters"]


@dataclass(frozen=True, kw_only=True)
class SubsetParameters(Parameters):
    """Selection; values first, then duplicates, then the split."""

    by: str | None = option(
        None, help="Column to select by, in our words or RELION's: fom, rlnCtfMaxResolution."
    )
    min_value: float | None = option(None, help="Keep rows whose value is at least this.")
    max_value: float | None = option(None, help="Keep rows whose value is at most this.")
    remove_duplicates: bool = option(
        default=False, help="Keep the first row of each micrograph name, or of each particle image."
    )
    min_distance: float | None = option(
        None,
        help="Of particles of one micrograph closer than this, keep the first in the table.",
        unit="A",
        above=0,
    )
    micrograph_pixel_size: float | None = option(
        None, help="Of the micrographs, if the table does not say it.", unit="A/px", above=0
    )
    n_subsets: int | None = option(None, help="Split into this many equal subsets.", minimum=1)
    subset_size: int | None = option(
        None, help="Split into subsets of this many rows; the last may be smaller.", minimum=1
    )
    random_order: bool = option(default=False, help="Deal the rows to the subsets at random.")
    seed: int = option(0, help="Start of the random numbers.", minimum=0)

    def check_together(self) -> None:
        """Check that options that belong together are there, and that something is asked for.

        Raises
        ------
        ParameterError
            If a limit has no column, a column no limit, or the limits contradict each other.
        """
        lower, upper = self.min_value, self.max_value
        if (self.by is None) != (lower is None and upper is None):
            raise ParameterError(
                "by",
                must="come with min_value or max_value",
                got="a limit alone" if self.by is None else f"{self.by} alone",
                remedy="Give --by and --min-value or --max-value",
            )
        if lower is not None and upper is not None and lower > upper:
            raise ParameterError(
                "min_value",
                must=f"be at most max_value ({upper:g})",
                got=f"{lower:g}",
                remedy="Change --min-value",
            )
        if self.random_order and not self.is_split:
            raise ParameterError(
                "random_order",
                must="come with n_subsets or subset_size",
                got="neither",
                remedy="Give --n-subsets or --subset-size",
            )
        if self.by is None and not (self.remove_duplicates or self.min_distance or self.is_split):
            raise ParameterError(
                "select subset",
                must="be told what to keep",
                got="no choice",
                remedy="Give --by, --remove-duplicates, --min-distance, --n-subsets "
                "or --subset-size",
            )

    @property
    def is_split(self) -> bool:
        """Whether the result is more than one table."""
        return self.n_subsets is not None or self.subset_size is not None
