"""What `tomo pick` writes."""

from __future__ import annotations

from dataclasses import dataclass

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, option

__all__ = ["TOMOGRAM_FORMATS", "TomogramPickOutput"]

TOMOGRAM_FORMATS = (
    "relion5",
    "relion4",
    "relion3",
    "warp",
    "copick",
    "ndjson",
    "dynamo",
    "imod",
    "points",
    "csv",
)


@dataclass(frozen=True, kw_only=True)
class TomogramPickOutput(Parameters):
    """Output of picking in tomograms."""

    format: str = option(
        "relion5,csv",
        help="Coordinate files, one or a list with commas: " + ", ".join(TOMOGRAM_FORMATS) + ".",
    )
    box_size: int = option(
        0,
        help="Cut boxes of this side about the picks, normalised, protein white; 0 cuts none.",
        unit="voxels",
        minimum=0,
        even=True,
    )
    mask: bool = option(
        default=False, help="Write a mask of where particles may be, for template matching."
    )
    report: bool = option(default=True, help="Write report.html.")

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats asked for, in order."""
        return tuple(f.strip() for f in self.format.split(",") if f.strip())

    def check_together(self) -> None:
        """Check the names of the formats.

        Raises
        ------
        ParameterError
            If one is not known.
        """
        for name in self.formats or ("nothing",):
            if name not in TOMOGRAM_FORMATS:
                raise ParameterError(
                    "format",
                    must="be among " + ", ".join(TOMOGRAM_FORMATS),
                    got=name,
                    remedy="Change --format",
                )
