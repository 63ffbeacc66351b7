"""Parameters of particle extraction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, option

__all__ = ["ExtractionParameters"]

_DEFAULT_CIRCLE = 0.75  # of the box, the diameter of RELION's background circle


@dataclass(frozen=True, kw_only=True)
class ExtractionParameters(Parameters):
    """Particle extraction."""

    box_size: int = option(
        help="Side of the box cut from the micrograph.", unit="px", minimum=2, even=True
    )
    rescale: int = option(
        0,
        help="Shrink particles to this side by Fourier cropping; 0 keeps the box.",
        unit="px",
        minimum=0,
        even=True,
    )
    invert_contrast: bool = option(
        default=True, help="Change the sign, so that dark particles become white."
    )
    normalize: bool = option(
        default=True, help="Bring the background to mean 0 and standard deviation 1."
    )
    background_diameter: float = option(
        -1.0,
        help="Circle around the particle outside of which is background, before rescaling; "
        "negative: 75 % of the box.",
        unit="px",
    )
    remove_ramp: bool = option(default=True, help="Subtract a plane fitted to the background.")
    white_dust: float = option(
        -1.0,
        help="Replace pixels this many standard deviations above the background; negative: off.",
    )
    black_dust: float = option(
        -1.0,
        help="Replace pixels this many standard deviations below the background; negative: off.",
    )
    float16: bool = option(
        default=False, help="Write half precision (RELION 4 and later): half the disk space."
    )
    minimum_fom: float | None = option(
        None, help="Leave out picks whose figure of merit is not above this."
    )
    phase_flip: bool = option(default=False, help="Flip phases where the CTF is negative.")
    premultiply: bool = option(default=False, help="Multiply particles by their CTF.")
    ctf_box_size: int = option(
        0,
        help="Side of the larger box in which the CTF is applied; 0 is twice --box-size.",
        unit="px",
        minimum=0,
        even=True,
    )
    edges: Literal["drop", "replicate"] = option(
        "drop",
        help="Boxes that run over an edge: drop and count them, or repeat the edge pixels.",
    )
    positions: Literal["nearest", "truncate"] = option(
        "nearest", help="Cut around the nearest pixel, or drop the fraction as RELION does."
    )
    residuals: bool = option(
        default=True, help="Keep the fraction of a pixel that was not cut as an origin."
    )
    relion_parity: bool = option(
        default=False,
        help="Do as relion_preprocess: --positions truncate --edges replicate --no-residuals, "
        "no dust.",
    )
    recenter: bool = option(
        default=False, help="Cut particles around the centres that their origins give."
    )
    recenter_x: float = option(
        0.0, help="Centre on this point of the reference (its centre is 0).", unit="px"
    )
    recenter_y: float = option(0.0, help="As --recenter-x.", unit="px")
    recenter_z: float = option(0.0, help="As --recenter-x.", unit="px")
    reference_pixel_size: float = option(
        0.0,
        help="Pixel size of that reference; 0 is that of the particles.",
        unit="A",
        minimum=0,
    )
    reset_offsets: bool = option(default=False, help="Set the origins of the particles to zero.")
    micrograph_ctf: bool = option(
        default=False,
        help="On re-extraction take CTF values from the micrographs, not from the particles.",
    )
    seed: int = option(1, help="Of the noise that replaces dust.", minimum=0)

    def check_together(self) -> None:
        """Check sizes against each other, and options that exclude one another.

        Raises
        ------
        ParameterError
            If two values contradict each other.
        """
        if self.rescale > self.box_size:
            self._refuse("rescale", f"be at most the box size, {self.box_size} px", "Lower it")
        if self.background_diameter > self.box_size:
            self._refuse(
                "background_diameter", f"be at most the box size, {self.box_size} px", "Lower it"
            )
        if self.phase_flip and self.premultiply:
            self._refuse("phase_flip", "not be given with --premultiply", "Choose one")
        if self.ctf_box_size and self.ctf_box_size < self.box_size:
            self._refuse("ctf_box_size", f"be at least {self.box_size} px", "Raise it")
        if self.reset_offsets and self.recenter:
            self._refuse("reset_offsets", "not be given with --recenter", "Choose one")
        if self.has_recenter_point and not self.recenter:
            self._refuse("recenter_x", "come with --recenter", "Add --recenter")
        if not self.normalize and self.has_dust_removal:
            self._refuse("white_dust", "come with --normalize", "Leave out --no-normalize")
        if self.relion_parity and self.has_dust_removal:
            self._refuse("relion_parity", "not be given with dust removal", "Choose one")

    def _refuse(self, name: str, must: str, remedy: str) -> None:
        raise ParameterError(name, must=must, got=getattr(self, name), remedy=remedy)

    @property
    def image_size(self) -> int:
        """Side of the finished images, px."""
        return self.rescale or self.box_size

    @property
    def scale(self) -> float:
        """Pixel size of the finished images over that of the micrograph."""
        return self.box_size / self.image_size

    @property
    def background_radius(self) -> int:
        """Radius of the background circle in the finished images, whole px as in RELION."""
        diameter = self.background_diameter
        diameter = _DEFAULT_CIRCLE * self.box_size if diameter < 0 else diameter
        return int(0.5 * diameter / self.scale)

    @property
    def filter_box_size(self) -> int:
        """Side of the box that is cut before the CTF is applied, px."""
        if not (self.phase_flip or self.premultiply):
            return self.box_size
        return self.ctf_box_size or 2 * self.box_size

    @property
    def has_dust_removal(self) -> bool:
        """Whether outlying pixels are replaced."""
        return self.white_dust > 0 or self.black_dust > 0

    @property
    def has_recenter_point(self) -> bool:
        """Whether particles are centred on a point other than the reference's centre."""
        return any((self.recenter_x, self.recenter_y, self.recenter_z))

    def resolved(self) -> ExtractionParameters:
        """Replace ``relion_parity`` by the values it stands for."""
        if not self.relion_parity:
            return self
        return replace(self, positions="truncate", edges="replicate", residuals=False)
