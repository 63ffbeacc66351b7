"""Parameters of the template picker."""

from __future__ import annotations

from dataclasses import dataclass

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, option

__all__ = ["TemplateParameters"]

_MOST_DETAIL = 40  # diameters over low-pass: 20 templates then take 1 min and 1 GB, with its cube


@dataclass(frozen=True, kw_only=True)
class TemplateParameters(Parameters):
    """Template picking."""

    diameter: float = option(help="Diameter of the particle.", unit="A", above=0)
    angular_step: float = option(
        5.0, help="Step of the in-plane rotation.", unit="deg", above=0, maximum=60
    )
    low_pass: float = option(
        20.0, help="Finest detail of micrographs and templates to compare.", unit="A", above=0
    )
    high_pass: float | None = option(
        None,
        help="Suppress structures longer than this in micrographs; without it, those much longer "
        "than a particle.",
        unit="A",
        above=0,
    )
    threshold: float | None = option(
        None,
        help="Least score of a pick, in standard deviations of the noise, instead of the one that "
        "follows from the false positives.",
    )
    false_positives: float = option(
        0.5,
        help="False picks to expect in a micrograph of pure noise; it sets the threshold.",
        above=0,
    )
    min_distance: float | None = option(
        None, help="Least distance of two picks; 0.75 diameters if not given.", unit="A", above=0
    )
    edge_distance: float = option(
        0.2,
        help="Least distance of a pick from the edge, as a fraction of the diameter.",
        minimum=0,
        maximum=5,
    )
    max_noise_deviation: float | None = option(
        None,
        help="Drop picks where the field, in units of the background's deviation, deviates more "
        "than this within a particle's disc; not done if not given.",
        above=0,
    )
    min_noise_mean: float | None = option(
        None,
        help="Drop picks where the mean of that field within a particle's disc is less than this, "
        "particles counted white; not done if not given.",
    )
    white_particles: bool = option(
        default=False, help="The particles are brighter than their surroundings in micrographs."
    )
    white_templates: bool = option(
        default=True, help="The particles are brighter than their surroundings in templates."
    )
    mask: bool = option(
        default=True, help="Leave out ice, carbon and holes larger than a particle."
    )
    template_pixel_size: float | None = option(
        None, help="Pixel size of the templates, instead of what their file says.",
        unit="A/px", above=0,
    )  # fmt: skip
    projections: float = option(
        30.0,
        help="Angle between the views that a map is projected along.",
        unit="deg",
        minimum=3,
        maximum=180,
    )
    symmetry: str = option("C1", help="Point group of a map: C1, D7, T, O or I, for example.")
    write_fom_maps: bool = option(
        default=False, help="Write the maps in which the peaks were sought."
    )

    @property
    def distance(self) -> float:
        """Least distance of two picks, A."""
        return 0.75 * self.diameter if self.min_distance is None else self.min_distance

    def check_together(self) -> None:
        """Check that a particle has detail at the resolution to compare, and not too much.

        Raises
        ------
        ParameterError
            If the diameter is less than twice the low-pass, or more than 40 times.
        """
        if self.diameter < 2 * self.low_pass:
            raise ParameterError(
                "low_pass",
                must=f"be at most half the diameter ({self.diameter / 2:g} A)",
                got=f"{self.low_pass:g} A",
                remedy="Change --low-pass or --diameter",
            )
        if self.diameter > _MOST_DETAIL * self.low_pass:
            raise ParameterError(
                "low_pass",
                must=f"be at least a {_MOST_DETAIL}th of the diameter "
                f"({self.diameter / _MOST_DETAIL:g} A)",
                got=f"{self.low_pass:g} A",
                remedy="Raise --low-pass",
            )
