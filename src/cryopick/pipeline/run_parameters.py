"""What a user can choose about an unattended run; everything else is derived."""

from __future__ import annotations

from dataclasses import dataclass

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, option

__all__ = ["RunParameters"]


@dataclass(frozen=True, kw_only=True)
class RunParameters(Parameters):
    """Unattended run."""

    min_diameter: float = option(help="Smallest diameter of a particle.", unit="A", above=0)
    max_diameter: float = option(help="Largest diameter of a particle.", unit="A", above=0)
    white_particles: bool = option(
        default=False, help="The particles are brighter than their surroundings."
    )
    box_size: int = option(
        0,
        help="Side of the box cut from the micrographs; 0 is 1.5 times the largest diameter, "
        "rounded up to a size that is fast to transform.",
        unit="px",
        minimum=0,
        even=True,
    )
    rescale: int = option(
        0, help="Shrink particles to this side; 0 keeps the box.", unit="px", minimum=0, even=True
    )
    float16: bool = option(
        default=False, help="Write particles in half precision, for RELION 4 and later."
    )

    def check_together(self) -> None:
        """Check the diameters and sizes against each other.

        Raises
        ------
        ParameterError
            If the smallest diameter is above the largest, or particles would be enlarged.
        """
        if self.min_diameter > self.max_diameter:
            raise ParameterError(
                "min_diameter",
                must=f"be at most max_diameter ({self.max_diameter:g} A)",
                got=f"{self.min_diameter:g} A",
                remedy="Change --min-diameter or --max-diameter",
            )
        if self.box_size and self.rescale > self.box_size:
            raise ParameterError(
                "rescale",
                must=f"be at most the box size, {self.box_size} px",
                got=f"{self.rescale} px",
                remedy="Lower it",
            )
