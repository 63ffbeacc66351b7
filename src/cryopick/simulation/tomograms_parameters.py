"""What a user can choose about simulated tomograms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, option

__all__ = ["TomogramSimulationParameters"]


@dataclass(frozen=True, kw_only=True)
class TomogramSimulationParameters(Parameters):
    """Tomograms."""

    number: int = option(1, help="How many tomograms.", minimum=1)
    width: int = option(256, help="Columns (x).", unit="voxels", minimum=32)
    height: int = option(256, help="Rows (y).", unit="voxels", minimum=32)
    depth: int = option(128, help="Sections (z).", unit="voxels", minimum=16)
    voxel_size: float = option(10.0, help="Side of a voxel.", unit="A", above=0)
    particles: int = option(60, help="Particles of all species in a tomogram.", minimum=0)
    min_distance: float | None = option(
        None,
        help="Least distance of two particles; so that they just touch if not given.",
        unit="A",
        minimum=0,
    )
    gold: int = option(0, help="Gold beads in a tomogram.", minimum=0)
    gold_diameter: float = option(100.0, help="Diameter of a bead.", unit="A", above=0)
    vesicles: int = option(0, help="Vesicles with a bilayer in a tomogram.", minimum=0)
    vesicle_diameter: float = option(
        700.0,
        help="Mean diameter of a vesicle; its axes differ by up to a fifth.",
        unit="A",
        above=0,
    )
    snr: float = option(
        0.2,
        help="Variance of the signal inside the particles over that of the noise, both as the "
        "tilt range and the lens leave them.",
        above=0,
    )
    min_tilt: float = option(-60.0, help="First tilt, about y.", unit="deg", minimum=-90, below=0)
    max_tilt: float = option(60.0, help="Last tilt.", unit="deg", above=0, maximum=90)
    defocus: float = option(
        0.0, help="Underfocus, as if the same in all tilts; 0 is no lens.", unit="A", minimum=0
    )
    voltage: float = option(300.0, help="Acceleration voltage.", unit="kV", minimum=40)
    coloured_noise: float = option(
        0.0,
        help="Share of the noise variance that is of structure: it passes the lens and falls off "
        "with frequency, as that of ice does.",
        minimum=0,
        maximum=1,
    )
    contrast: Literal["dark", "white"] = option(
        "dark", help="Whether protein is dark or white on its background."
    )
    data_type: Literal["float32", "float16"] = option("float32", help="Type of voxel in the files.")
    seed: int = option(0, help="The same seed gives the same voxels.", minimum=0)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (z, y, x)."""
        return self.depth, self.height, self.width

    def check_together(self) -> None:
        """Check that beads and vesicles fit into the tomogram.

        Raises
        ------
        ParameterError
            If one of them is larger than nine tenths of the shortest side.
        """
        room = min(self.shape) * self.voxel_size
        for name, largest in (
            ("gold_diameter", self.gold_diameter if self.gold else 0.0),
            ("vesicle_diameter", 1.2 * self.vesicle_diameter if self.vesicles else 0.0),
        ):
            if largest > 0.9 * room:
                raise ParameterError(
                    name,
                    must=f"fit into the {room:g} A of the shortest side",
                    got=f"{getattr(self, name):g} A",
                    remedy="Change it or the size of the tomogram",
                )
