"""Parameters of picking in tomograms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, option

__all__ = ["TomogramPickParameters"]


@dataclass(frozen=True, kw_only=True)
class TomogramPickParameters(Parameters):
    """Picking in tomograms."""

    method: Literal["matched", "segment", "dog", "threshold"] = option(
        "matched",
        help="matched: balls against the spectrum of the noise, moved to the middle of what they "
        "found; segment: objects of a segmentation; dog, threshold: plain baselines.",
    )
    min_diameter: float = option(
        80.0, help="Smallest diameter of a particle or of one of its domains.", unit="A", above=0
    )
    max_diameter: float = option(
        260.0, help="Largest diameter of a particle, along its longest axis.", unit="A", above=0
    )
    min_distance: float | None = option(
        None,
        help="Least distance of two picks; 0.55 of the largest diameter if not given.",
        unit="A",
        above=0,
    )
    false_positives: float = option(
        0.05, help="False picks to expect in a tomogram of pure noise.", above=0
    )
    min_score: float | None = option(
        None, help="Least score of a pick, instead of what --false-positives asks for."
    )
    white_particles: bool = option(default=False, help="Protein is brighter than its surroundings.")
    gold: bool = option(
        default=True,
        help="Look for gold beads, and leave them out; in a denoised tomogram with few particles, "
        "these may be taken for gold.",
    )
    extended: bool = option(default=False, help="Keep what is part of a membrane or a filament.")
    lower_z_slice: int | None = option(
        None, help="First section that is searched; from 0.", unit="voxels", minimum=0
    )
    upper_z_slice: int | None = option(
        None, help="Section after the last that is searched.", unit="voxels", minimum=1
    )
    instances: Literal["mean-shift", "watershed", "components"] = option(
        "watershed", help="How a segmented region becomes particles, in methods segment, threshold."
    )
    probability: float = option(
        0.5,
        help="Least probability of a voxel of a particle, in method segment.",
        above=0,
        below=1,
    )
    kinds: int = option(
        0, help="Kinds that the picks are grouped into; 0 finds how many.", minimum=0, maximum=20
    )
    block: int = option(
        128, help="Side of the blocks that are worked on; it bounds the memory.", unit="voxels",
        minimum=32,
    )  # fmt: skip

    def check_together(self) -> None:
        """Check the diameters and the sections.

        Raises
        ------
        ParameterError
            If a lower limit is not below its upper one.
        """
        if self.min_diameter > self.max_diameter:
            raise ParameterError(
                "min_diameter",
                must=f"be at most max_diameter ({self.max_diameter:g} A)",
                got=f"{self.min_diameter:g} A",
                remedy="Change --min-diameter or --max-diameter",
            )
        low, high = self.lower_z_slice, self.upper_z_slice
        if low is not None and high is not None and low >= high:
            raise ParameterError(
                "lower_z_slice",
                must=f"be below upper_z_slice ({high})",
                got=str(low),
                remedy="Change --lower-z-slice or --upper-z-slice",
            )

    @property
    def distance(self) -> float:
        """Least distance of two picks, A."""
        return self.min_distance or 0.55 * self.max_diameter

    def slab(self, depth: int) -> tuple[int, int]:
        """First section and the one after the last that are searched.

        Parameters
        ----------
        depth
            Sections of the tomogram.

        Raises
        ------
        ParameterError
            If the limits lie beyond the tomogram.
        """
        low = self.lower_z_slice or 0
        high = depth if self.upper_z_slice is None else self.upper_z_slice
        if high > depth or low >= depth:
            name = "upper_z_slice" if high > depth else "lower_z_slice"
            raise ParameterError(
                name,
                must=f"lie within the {depth} sections of the tomogram",
                got=str(high if high > depth else low),
                remedy=f"Change --{name.replace('_', '-')}",
            )
        return low, high
