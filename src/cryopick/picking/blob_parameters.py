"""Parameters of the matched-filter picker."""

from __future__ import annotations

from dataclasses import dataclass

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, option

__all__ = ["LEAST_ELONGATION", "SHAPES", "BlobParameters"]

LEAST_ELONGATION = 1.25  # largest over smallest diameter from which ellipses are tried
SHAPES = ("ball", "shell", "disc", "ring", "ellipse")


@dataclass(frozen=True, kw_only=True)
class BlobParameters(Parameters):
    """Matched-filter picking."""

    min_diameter: float | None = option(
        None,
        help="Smallest diameter of a particle; estimated from the micrographs if left out.",
        unit="A",
        above=0,
    )
    max_diameter: float | None = option(
        None,
        help="Largest diameter of a particle; estimated from the micrographs if left out.",
        unit="A",
        above=0,
    )
    shapes: str = option(
        "ball,shell",
        help="What particles may look like, a list with commas: ball (filled), shell (hollow "
        "sphere), disc, ring, ellipse (axes of the smallest and the largest diameter).",
    )
    white_particles: bool = option(
        default=False, help="The particles are brighter than their surroundings."
    )
    false_positives: float = option(
        0.5,
        help="False picks to expect in a micrograph of pure noise; it sets the threshold.",
        above=0,
    )
    threshold: float | None = option(
        None,
        help="Least score of a pick, in standard deviations of the noise, instead.",
    )
    min_distance: float = option(
        0.75,
        help="Least distance of two picks, as a fraction of the smallest diameter.",
        above=0,
        maximum=5,
    )
    edge_distance: float = option(
        0.2,
        help="Least distance of a pick from the edge, as a fraction of the smallest diameter.",
        minimum=0,
        maximum=5,
    )
    low_pass: float | None = option(
        None,
        help="Leave out detail finer than this; a sixth of the smallest diameter if not given.",
        unit="A",
        above=0,
    )
    mask: bool = option(
        default=True, help="Leave out ice, carbon and holes larger than a particle."
    )
    whiten: bool = option(
        default=True, help="Weigh frequencies by the spectrum of the background of each field."
    )
    learn_profile: bool = option(
        default=True, help="Search again with the mean profile of the first picks."
    )
    write_fom_maps: bool = option(
        default=False, help="Write the maps in which the peaks were sought."
    )

    @property
    def shape_names(self) -> tuple[str, ...]:
        """The shapes asked for, in order."""
        return tuple(dict.fromkeys(n.strip() for n in self.shapes.split(",") if n.strip()))

    def check_together(self) -> None:
        """Check the diameters and the names of the shapes.

        Raises
        ------
        ParameterError
            If one diameter is given without the other, the smallest is above the largest, the
            low-pass leaves nothing of the smallest, or no shape can be tried.
        """
        low, high = self.min_diameter, self.max_diameter
        if (low is None) != (high is None):
            given, missing = ("min", "max") if high is None else ("max", "min")
            raise ParameterError(
                f"{given}_diameter",
                must=f"be given with {missing}_diameter, or both left out",
                got=f"{low or high:g} A alone",
                remedy=f"Add --{missing}-diameter",
            )
        if low is not None and high is not None and low > high:
            raise ParameterError(
                "min_diameter",
                must=f"be at most max_diameter ({high:g} A)",
                got=f"{low:g} A",
                remedy="Change --min-diameter or --max-diameter",
            )
        if low is not None and self.low_pass is not None and self.low_pass > low / 2:
            raise ParameterError(
                "low_pass",
                must=f"be at most half of min_diameter ({low / 2:g} A)",
                got=f"{self.low_pass:g} A",
                remedy="Change --low-pass",
            )
        self._check_shapes()

    def _check_shapes(self) -> None:
        unknown = [n for n in self.shape_names if n not in SHAPES]
        if unknown or not self.shape_names:
            raise ParameterError(
                "shapes",
                must=f"be among {', '.join(SHAPES)}",
                got=unknown[0] if unknown else "none",
                remedy="Change --shapes",
            )
        low, high = self.min_diameter or 1.0, self.max_diameter or 2.0
        if self.shape_names == ("ellipse",) and high < LEAST_ELONGATION * low:
            raise ParameterError(
                "max_diameter",
                must=f"be at least {LEAST_ELONGATION:g} times min_diameter for ellipses alone",
                got=f"{high / low:.2f} times",
                remedy="Change --max-diameter, or add ball to --shapes",
            )
