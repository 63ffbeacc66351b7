"""What a user can choose about a picture."""

from __future__ import annotations

from dataclasses import dataclass

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
