"""What a user can choose about an unattended run; everything else is derived."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, option

__all__ = ["ALSO_PICKERS", "RunParameters", "Sizes"]

ALSO_PICKERS = ("blob", "log", "general", "topaz")

_NARROW = 1.2  # half of the range of sizes about a diameter that was told


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large particles are, A."""

    diameter: float
    min_diameter: float
    max_diameter: float


@dataclass(frozen=True, kw_only=True)
class RunParameters(Parameters):
    """Unattended run."""

    diameter: float | None = option(
        None, help="Diameter of the particle; estimated if not given.", unit="A", above=0
    )
    min_diameter: float | None = option(
        None,
        help="Smallest diameter of particles of several sizes or long ones, instead of --diameter.",
        unit="A",
        above=0,
    )
    max_diameter: float | None = option(
        None, help="Largest diameter, with --min-diameter.", unit="A", above=0
    )
    picker: Literal["network", "general", "topaz", "template"] = option(
        "network",
        help="What picks all micrographs: the network, trained on the particles of good classes; "
        "the general model as it is shipped; Topaz, trained alike; or averages of good classes "
        "as templates.",
    )
    training: bool = option(
        default=True,
        help="Train network or topaz first; off: their general models pick straight away.",
    )
    also_pick: str = option(
        "",
        help="More pickers, of blob, log, general and topaz, with commas between them; particles "
        "are then those of a consensus of all.",
    )
    consensus: Literal["network", "reliability", "votes"] = option(
        "network", help="How that is found, as --method of pick consensus."
    )
    until: Literal[
        "ctf",
        "diameter",
        "first_picks",
        "first_particles",
        "first_classes",
        "first_selection",
        "training",
        "picks",
        "consensus",
        "particles",
        "classes",
        "selection",
    ] = option("selection", help="The last step to do.")
    first_picker: Literal["blob", "log"] = option(
        "blob", help="What finds the particles that the picker is trained on."
    )
    subset: int = option(
        10,
        help="Micrographs on which these are found, the first that are not refused.",
        minimum=2,
        maximum=1000,
    )
    ctf: Literal["auto", "ignore"] = option(
        "auto", help="Estimate the CTF where the table has none; or do without any."
    )
    voltage: float | None = option(
        None, help="Of the microscope, instead of what the table says.", unit="kV", above=0
    )
    spherical_aberration: float | None = option(
        None, help="Of the lens, instead of what the table says.", unit="mm", minimum=0
    )
    amplitude_contrast: float | None = option(
        None,
        help="As a fraction, instead of what the table says; 0.1 if nobody says.",
        minimum=0,
        maximum=1,
    )
    white_particles: bool = option(
        default=False, help="The particles are brighter than their surroundings."
    )
    first_classes: int | None = option(
        None,
        help="Classes of the first particles; one for 40 particles, 10 to 50, if not given.",
        minimum=1,
        maximum=2000,
    )
    classes: int | None = option(
        None,
        help="Classes of the final particles; one for 60, 10 to 100, if not given.",
        minimum=1,
        maximum=2000,
    )
    minimum_score: float = option(
        0.5, help="Score, 0 to 1, from which a class is good.", minimum=0, maximum=1
    )
    threshold: float | None = option(
        None,
        help="Figure of merit that a pick must exceed to be extracted at last; all picks if not "
        "given.",
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
        0,
        help="Shrink the final particles to this side; 0 keeps the box.",
        unit="px",
        minimum=0,
        even=True,
    )
    coarse_pixel_size: float | None = option(
        None,
        help="Pixel size of the first particles; a 32nd of the diameter, at most 5 A, if not "
        "given.",
        unit="A",
        above=0,
    )
    training_steps: int | None = option(
        None,
        help="Steps of training the network at most; as many as `pick train` does if not given.",
        minimum=1,
    )
    float16: bool = option(
        default=False, help="Write particles in half precision, for RELION 4 and later."
    )
    seed: int = option(1, help="Seed of all random choices.", minimum=0)

    def check_together(self) -> None:
        """Check the diameters and sizes against each other.

        Raises
        ------
        ParameterError
            If diameters contradict each other, one is missing, or particles would be enlarged.
        """
        self._check_pickers()
        low, high = self.min_diameter, self.max_diameter
        if (low is None) != (high is None):
            raise ParameterError(
                "min_diameter and max_diameter",
                must="be given together",
                got=f"{low or 'none'} and {high or 'none'}",
                remedy="Give both, or --diameter",
            )
        if low is not None and self.diameter is not None:
            raise ParameterError(
                "diameter",
                must="not be given with min_diameter and max_diameter",
                got=f"{self.diameter:g} A",
                remedy="Leave out --diameter, or the other two",
            )
        if low is not None and high is not None and low > high:
            raise ParameterError(
                "min_diameter",
                must=f"be at most max_diameter ({high:g} A)",
                got=f"{low:g} A",
                remedy="Change --min-diameter or --max-diameter",
            )
        if self.box_size and self.rescale > self.box_size:
            raise ParameterError(
                "rescale",
                must=f"be at most the box size, {self.box_size} px",
                got=f"{self.rescale} px",
                remedy="Lower it",
            )

    def _check_pickers(self) -> None:
        names = [name.strip() for name in self.also_pick.split(",")] if self.also_pick else []
        for name in names:
            if name not in ALSO_PICKERS or names.count(name) > 1 or name == self.picker:
                raise ParameterError(
                    "also_pick",
                    must=f"name pickers beside {self.picker}, each once, of "
                    f"{', '.join(ALSO_PICKERS)}",
                    got=self.also_pick,
                    remedy="Change --also-pick",
                )

    @property
    def also_pickers(self) -> tuple[str, ...]:
        """More pickers, whose picks join those of `picker` in a consensus."""
        return tuple(name.strip() for name in self.also_pick.split(",") if name.strip())

    @property
    def sizes(self) -> Sizes | None:
        """What was told of the size of the particles; None where it is to be estimated."""
        if self.min_diameter is not None and self.max_diameter is not None:
            middle = math.sqrt(self.min_diameter * self.max_diameter)
            return Sizes(
                diameter=middle, min_diameter=self.min_diameter, max_diameter=self.max_diameter
            )
        if self.diameter is None:
            return None
        return Sizes(
            diameter=self.diameter,
            min_diameter=self.diameter / _NARROW,
            max_diameter=self.diameter * _NARROW,
        )

    @property
    def is_trained(self) -> bool:
        """Whether the picker learns from the first particles, or takes them for templates."""
        return self.picker == "template" or (self.picker in ("network", "topaz") and self.training)
