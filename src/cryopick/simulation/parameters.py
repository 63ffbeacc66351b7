"""What a user can choose about simulated data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, option

__all__ = [
    "JUNK_KINDS",
    "MicrographSimulationParameters",
    "MicroscopeParameters",
    "ParticleSimulationParameters",
    "SpecimenParameters",
]

JUNK_KINDS = (
    "noise",
    "ice",
    "carbon",
    "aggregate",
    "neighbours",
    "blob",
    "gold",
    "edge",
    "overlap",
)


@dataclass(frozen=True, kw_only=True)
class SpecimenParameters(Parameters):
    """Specimen."""

    phantoms: str = option(
        "barrel",
        help="Particles made by code, one or a list with commas: barrel, shell, rod, small, "
        "asymmetric, ring, tetramer, cage, hollow, globule, dumbbell; and random, random1, "
        "random2, ..., each of a shape of its own.",
    )
    model: str = option(
        "",
        help="Atomic models or maps to use instead, one or a list with commas: .pdb, .cif or "
        ".mrc, each also .gz.",
    )
    phantom_diameter: float | None = option(
        None, help="Diameter to make phantoms of, instead of their own.", unit="A", minimum=30
    )
    phantom_seed: int = option(
        0,
        help="Another seed fills the same shapes otherwise, and draws other random shapes.",
        minimum=0,
    )
    orientation: Literal["random", "preferred"] = option(
        "random", help="Whether views are spread evenly or heaped about three of them."
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The phantoms asked for, in order."""
        return tuple(dict.fromkeys(n.strip() for n in self.phantoms.split(",") if n.strip()))

    @property
    def model_files(self) -> tuple[str, ...]:
        """The models asked for, in order; they take the place of phantoms."""
        return tuple(dict.fromkeys(n.strip() for n in self.model.split(",") if n.strip()))

    @property
    def preferred_fraction(self) -> float:
        """Share of the orientations near a preferred view."""
        return 0.8 if self.orientation == "preferred" else 0.0

    def check_together(self) -> None:
        """Check that there is something to simulate.

        Raises
        ------
        ParameterError
            If neither a phantom nor a model is named.
        """
        if not self.names and not self.model_files:
            raise ParameterError(
                "phantoms", must="name a phantom", got="none", remedy="Try --phantoms barrel"
            )


@dataclass(frozen=True, kw_only=True)
class MicroscopeParameters(Parameters):
    """Microscope."""

    voltage: float = option(300.0, help="Acceleration voltage.", unit="kV", minimum=40)
    spherical_aberration: float = option(
        2.7, help="Spherical aberration of the lens.", unit="mm", minimum=0
    )
    amplitude_contrast: float = option(
        0.1, help="Share of amplitude contrast.", minimum=0, maximum=1
    )
    phase_shift: float = option(0.0, help="Phase shift of a phase plate.", unit="deg")
    min_defocus: float = option(8000.0, help="Least underfocus.", unit="A", minimum=0)
    max_defocus: float = option(25000.0, help="Most underfocus.", unit="A", minimum=0)
    astigmatism: float = option(
        250.0, help="Typical difference of the two defoci.", unit="A", minimum=0
    )
    bfactor: float = option(
        100.0, help="Envelope exp(-B/4 k^2) on everything the lens images.", unit="A^2", minimum=0
    )

    def check_together(self) -> None:
        """Check that the defocus range is one.

        Raises
        ------
        ParameterError
            If the least defocus is above the most.
        """
        if self.min_defocus > self.max_defocus:
            raise ParameterError(
                "min_defocus",
                must=f"be at most max_defocus ({self.max_defocus:g} A)",
                got=f"{self.min_defocus:g} A",
                remedy="Change --min-defocus",
            )


@dataclass(frozen=True, kw_only=True)
class MicrographSimulationParameters(Parameters):
    """Micrographs."""

    number: int = option(10, help="How many micrographs.", minimum=1)
    width: int = option(2048, help="Columns of a micrograph.", unit="px", minimum=64)
    height: int = option(2048, help="Rows of a micrograph.", unit="px", minimum=64)
    pixel_size: float = option(1.5, help="Pixel size.", unit="A/px", above=0)
    particles: int = option(200, help="Particles in a micrograph.", minimum=0)
    separation: float = option(
        0.9,
        help="Least distance of two particles, in diameters; below 0.8 they touch and overlap.",
        minimum=0,
    )
    dose: float = option(40.0, help="Electrons that expose the specimen.", unit="e/A^2", above=0)
    detector_efficiency: float = option(
        0.6, help="Share of the electrons that count, as a DQE.", above=0, maximum=1
    )
    contrast: float = option(
        1.0, help="Factor on the contrast of particles; 1 is protein in ice.", minimum=0
    )
    ice_thickness: float = option(400.0, help="Mean thickness of the ice.", unit="A", minimum=0)
    ice_gradient: float = option(
        0.3, help="Change of the thickness across a micrograph, relative.", minimum=0, maximum=1.5
    )
    structural_noise: float = option(
        1.0, help="Factor on the amplitude of the noise of ice and carbon.", minimum=0
    )
    carbon_fraction: float = option(
        0.2, help="Share of micrographs with the edge of a carbon film.", minimum=0, maximum=1
    )
    ice_blobs: float = option(1.0, help="Lumps of ice in a micrograph, on average.", minimum=0)
    aggregates: float = option(
        1.0, help="Clumps of particles in a micrograph, on average.", minimum=0
    )
    hot_pixels: int = option(0, help="Pixels of absurd value in a micrograph.", minimum=0)
    data_type: Literal["float32", "float16"] = option("float32", help="Type of pixel in the files.")
    seed: int = option(0, help="The same seed gives the same pixels.", minimum=0)


@dataclass(frozen=True, kw_only=True)
class ParticleSimulationParameters(Parameters):
    """Particle images."""

    number: int = option(1000, help="How many images.", minimum=1)
    box_size: int = option(128, help="Side of an image.", unit="px", minimum=16, even=True)
    pixel_size: float = option(3.0, help="Pixel size.", unit="A/px", above=0)
    snr: float = option(
        0.1,
        help="Variance of signal over that of noise, after the CTF, inside the mask.",
        above=0,
    )
    mask_diameter: float | None = option(
        None,
        help="Circle in which the signal is measured; 1.2 times the largest diameter if not given.",
        unit="A",
        above=0,
    )
    shift: float = option(6.0, help="Rms distance from the centre.", unit="A", minimum=0)
    junk_fraction: float = option(
        0.15,
        help="Share of images that hold no particle.",
        minimum=0,
        maximum=1,
    )
    junk_kinds: str = option(
        "noise,ice,carbon,aggregate,neighbours",
        help="What those images hold, in equal shares, a list with commas of: noise, ice, carbon, "
        "aggregate, neighbours (the gap between two), blob (denatured protein), gold (a bead), "
        "edge (of the field), overlap (of two particles).",
    )
    crowding: float = option(
        0.0,
        help="Other particles near the middle of an image, on average, 0.95 to 1.6 diameters "
        "away, as in a dense field; fewer where there is no room.",
        minimum=0,
    )
    coloured_noise: float = option(
        0.3,
        help="Share of the noise variance that passes the lens, as that of ice does.",
        minimum=0,
        maximum=1,
    )
    per_micrograph: int = option(
        50, help="Images that share a micrograph and so its defocus.", minimum=1
    )
    seed: int = option(0, help="The same seed gives the same pixels.", minimum=0)

    @property
    def kinds_of_junk(self) -> tuple[str, ...]:
        """The kinds of junk asked for, in order."""
        return tuple(dict.fromkeys(n.strip() for n in self.junk_kinds.split(",") if n.strip()))

    def check_together(self) -> None:
        """Check that every kind of junk is one.

        Raises
        ------
        ParameterError
            If a kind of junk is unknown, or none is named.
        """
        unknown = [n for n in self.kinds_of_junk if n not in JUNK_KINDS]
        if unknown or not self.kinds_of_junk:
            raise ParameterError(
                "junk_kinds",
                must=f"be among {', '.join(JUNK_KINDS)}",
                got=", ".join(unknown) or "none",
                remedy="For no junk give --junk-fraction 0",
            )
