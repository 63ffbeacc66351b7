"""What a user can choose about 2D classification of a stream."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, option

__all__ = ["StreamParameters"]

_CLASSES = 50
_BEYOND_NYQUIST = 0.5  # A that a limit is raised to beyond two pixels
_VARIANCE = 85.0


@dataclass(frozen=True, kw_only=True)
class StreamParameters(Parameters):
    """2D classification of particles that arrive while it runs."""

    classes: int | None = option(
        None, help="Number of classes; that of the --references, or 50 without, if not given.",
        minimum=1, maximum=2000,
    )  # fmt: skip
    diameter: float = option(help="Diameter of the particle.", unit="A", above=0)
    mask: Literal["soft", "gauss", "none"] = option(
        "soft", help="Mask of the images: a soft disc, a Gaussian, or all of the box."
    )
    mask_diameter: float | None = option(
        None, help="Diameter of the soft disc; 1.2 times the particle's if not given.",
        unit="A", above=0,
    )  # fmt: skip
    sigma: float = option(
        -1, help="Of the Gaussian mask, in pixels of the particles; -1: a third of the box.",
        unit="px", minimum=-1,
    )  # fmt: skip
    resolution_limit: float = option(
        8.0, help="Finest detail used in alignment. A limit below two pixels is raised to "
        "0.5 A above them.", unit="A", above=0,
    )  # fmt: skip
    ctf: Literal["full", "wiener", "none"] = option(
        "full", help="CTF in the score; or each image corrected first by a Wiener-like filter, "
        "then compared as if without lens; or no correction. Averages are exact in both.",
    )  # fmt: skip
    basis: Literal["noise-edge", "variance", "none"] = option(
        "noise-edge", help="What of the images is compared: components that stand out of the "
        "noise, those that hold --variance, or all.",
    )  # fmt: skip
    variance: float = option(
        _VARIANCE, help="Share of the variance above the noise that --basis variance keeps.",
        unit="%", above=0, maximum=100,
    )  # fmt: skip
    training: int = option(
        100_000, help="Most particles that classes are made from in a round; drawn at random "
        "from all that have arrived. All of them are assigned.", minimum=100,
    )  # fmt: skip
    first_batch: int = option(2000, help="Particles that make the first classes.", minimum=2)
    batch: int = option(1000, help="Least number of new particles in a later round.", minimum=1)
    growth: float = option(
        1.5, help="Factor by which the particles must have grown before classes are made again, "
        "so that the cost stays in proportion to their number.", minimum=1, maximum=10,
    )  # fmt: skip
    forgetting: float = option(
        0.0, help="Share of its weight in the averages that a particle loses in each round after "
        "its own; 0: averages are exact sums.", minimum=0, below=1,
    )  # fmt: skip
    iterations: int = option(
        25, help="Most iterations that make the first classes.", minimum=1, maximum=999
    )
    regularisation: float = option(
        1.0, help="Weight T of the data against the prior of the averages; less is smoother.",
        above=0,
    )  # fmt: skip
    offset_range: float = option(20.0, help="Largest shift searched.", unit="A", minimum=0)
    offset_step: float = option(
        8.0, help="Step of the first shift search; later ones are finer, and shifts are refined.",
        unit="A", above=0,
    )  # fmt: skip
    psi_step: float | None = option(
        None, help="Step of the rotation search; as fine as the resolution asks if not given. "
        "Rotations are refined below it.", unit="deg", above=0, maximum=60,
    )  # fmt: skip
    center_classes: bool = option(
        default=True, help="Keep the centre of mass of each average centred; given references "
        "stay where they are.",
    )  # fmt: skip
    junk: bool = option(default=True, help="Let a junk component take particles that fit no class.")
    seed: int = option(1, help="Seed of all random choices.", minimum=0)

    def check_together(self) -> None:
        """Refuse values of a mask or basis that is not in use.

        Raises
        ------
        ParameterError
            If a value would have no effect, or `sigma` is neither -1 nor above 0.
        """
        for name, is_given, owner, wanted in (
            ("mask_diameter", self.mask_diameter is not None, self.mask, "soft"),
            ("sigma", self.sigma != -1, self.mask, "gauss"),
            ("variance", self.variance != _VARIANCE, self.basis, "variance"),
        ):
            if is_given and owner != wanted:
                flag = "--basis" if name == "variance" else "--mask"
                raise ParameterError(
                    name,
                    must=f"be left out unless {flag} is {wanted}",
                    got=getattr(self, name),
                    remedy=f"Give {flag} {wanted}",
                )
        if self.sigma != -1 and self.sigma <= 0:
            raise ParameterError(
                "sigma",
                must="be -1 or above 0",
                got=f"{self.sigma:g} px",
                remedy="Give -1 for a third of the box",
            )

    @property
    def n_classes(self) -> int:
        """Number of classes to make."""
        return _CLASSES if self.classes is None else self.classes

    def limit(self, pixel_size: float) -> float:
        """Resolution limit that pixels of this size (A) can hold, A."""
        nyquist = 2 * pixel_size
        if self.resolution_limit < nyquist * (1 - 1e-6):
            return nyquist + _BEYOND_NYQUIST
        return self.resolution_limit

    def limit_sentence(self, pixel_size: float) -> str | None:
        """Tell that the resolution limit is raised; None where it is not."""
        limit = self.limit(pixel_size)
        if limit == self.resolution_limit:
            return None
        return (
            f"The resolution limit of {self.resolution_limit:g} A is below two pixels of "
            f"{pixel_size:g} A; {limit:g} A is used."
        )

    def next_round(self, n_seen: int, *, is_anchored: bool) -> int:
        """Count the particles with which the next round begins.

        Parameters
        ----------
        n_seen
            In the rounds so far.
        is_anchored
            Whether references are fixed: only new particles cost time then, and rounds need not
            grow.
        """
        if not n_seen and not is_anchored:
            return self.first_batch
        more = n_seen + self.batch
        return more if is_anchored else max(more, math.ceil(self.growth * n_seen))

    def of_engine(
        self, *, n_classes: int, box_size: int, pixel_size: float
    ) -> ClassificationParameters:
        """Make those of the alignment engine, for a box (px) and pixel size (A)."""
        side = box_size * pixel_size
        return ClassificationParameters(
            classes=n_classes,
            diameter=min(self.diameter, side) if self.mask != "soft" else self.diameter,
            mask_diameter=self.mask_diameter if self.mask == "soft" else side,
            iterations=self.iterations,
            regularisation=self.regularisation,
            resolution_limit=self.limit(pixel_size),
            offset_range=self.offset_range,
            offset_step=self.offset_step,
            psi_step=self.psi_step,
            ctf="none" if self.ctf == "none" else "full",
            center_classes=self.center_classes,
            junk=self.junk,
            seed=self.seed,
        )

    def mask_sigma(self, *, box_size: int, pixel_size: float) -> float:
        """Sigma of the Gaussian mask in A; inf without one."""
        if self.mask != "gauss":
            return math.inf
        return pixel_size * (box_size / 3 if self.sigma == -1 else self.sigma)
