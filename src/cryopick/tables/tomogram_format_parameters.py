"""What a user can choose about files of positions in tomograms."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, describe, option

__all__ = ["TomogramFormatParameters"]

_USED: dict[str, tuple[str, ...]] = {
    "coordinate_pixel_size": ("relion4", "relion3", "warp"),
    "normalised": ("warp",),
    "dynamo_base": ("dynamo",),
    "object_name": ("copick", "ndjson"),
    "user": ("copick",),
    "session": ("copick",),
}
_SEPARATORS = re.compile(r"[\s_/\\]")


@dataclass(frozen=True, kw_only=True)
class TomogramFormatParameters(Parameters):
    """Coordinate file."""

    format: Literal[
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
    ] = option(
        "relion5",
        help="relion5 (A from the centre), relion4 and relion3 (voxels, with rlnTomoName or "
        "rlnMicrographName), warp, copick, ndjson (data portal), dynamo, imod (.mod), points (text "
        "of IMOD's coordinates), csv (A from the first voxel).",
    )
    coordinate_pixel_size: float | None = option(
        None,
        help="Voxel size that coordinates of relion4, relion3 and warp count in; that of the "
        "tomogram if not given.",
        unit="A",
        above=0,
    )
    normalised: bool = option(
        default=False, help="For warp: coordinates from 0 to 1, as its own matching writes them."
    )
    dynamo_base: int = option(
        1, help="What Dynamo calls the first voxel: 1, as MATLAB, or 0.", minimum=0, maximum=1
    )
    object_name: str = option("particle", help="Name of what was picked, for copick and ndjson.")
    user: str = option("cryopick", help="User that copick files the picks under.")
    session: str = option("1", help="Session that copick files the picks under.")

    def check_together(self) -> None:
        """Check that each choice is one of the format, and that copick can keep the names.

        Raises
        ------
        ParameterError
            If a choice does not belong to the format, or a name cannot be part of a file name.
        """
        defaults = {d.name: d.default for d in describe(type(self))}
        for name, formats in _USED.items():
            if getattr(self, name) != defaults[name] and self.format not in formats:
                raise ParameterError(
                    name,
                    must=f"be given with {' or '.join(formats)} only",
                    got=f"format {self.format}",
                    remedy="Leave it out or change --format",
                )
        if self.normalised and self.coordinate_pixel_size:
            raise ParameterError(
                "coordinate_pixel_size",
                must="be left out where coordinates are fractions",
                got=f"{self.coordinate_pixel_size:g} A",
                remedy="Leave out one of the two",
            )
        for name in ("object_name", "user", "session"):
            if not getattr(self, name) or _SEPARATORS.search(getattr(self, name)):
                raise ParameterError(
                    name,
                    must="have no underscore, space or slash",
                    got=getattr(self, name) or "nothing",
                    remedy="Use a hyphen",
                )
