"""What a user may say about a conversion."""

from __future__ import annotations

from dataclasses import dataclass

from cryopick.parameters import Parameters, option

__all__ = ["ConvertParameters"]


@dataclass(frozen=True, kw_only=True)
class ConvertParameters(Parameters):
    """Conversion."""

    pixel_size: float | None = option(
        None, help="Pixel size, where the input does not say it.", unit="A", above=0
    )
    box_size: int | None = option(
        None, help="Box side, for formats that draw boxes.", unit="px", minimum=1
    )
    scale: float = option(
        1.0,
        help="Multiply positions and box by this: the down-sampling of the image that was picked.",
        above=0,
    )
    minimum_fom: float | None = option(
        None, help="Leave out picks with a lower figure of merit (crYOLO: 0.3, Topaz: 0)."
    )
    flip_y: bool = option(
        default=False,
        help="Count y from the other edge, for pickers that read the image upside down.",
    )
