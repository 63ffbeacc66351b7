"""What a user can choose about the order of class averages."""

from __future__ import annotations

from dataclasses import dataclass

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, option

__all__ = ["OrderingParameters"]


@dataclass(frozen=True, kw_only=True)
class OrderingParameters(Parameters):
    """Order of averages."""

    diameter: float | None = option(
        None, help="Diameter of the circle that is compared; the mask of the run, or nine tenths "
        "of the box, if not given.", unit="A", above=0,
    )  # fmt: skip
    radius: float | None = option(
        None, help="Radius of that circle instead, in pixels of the averages.", unit="px", above=2
    )
    shift_range: float | None = option(
        None, help="Largest shift between two averages; a thirtieth of the circle if not given.",
        unit="A", minimum=0,
    )  # fmt: skip
    mirrors: bool = option(default=True, help="Take an average and its mirror image for alike.")

    def check_together(self) -> None:
        """Check that the circle is given once.

        Raises
        ------
        ParameterError
            If both a diameter and a radius are given.
        """
        if self.diameter is not None and self.radius is not None:
            raise ParameterError(
                "radius",
                must="be given without a diameter",
                got=f"{self.radius:g} px and {self.diameter:g} A",
                remedy="Leave out --radius or --diameter",
            )
