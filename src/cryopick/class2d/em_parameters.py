"""What a user can choose about 2D classification by expectation-maximisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cryopick.parameters import Parameters, option

__all__ = ["ClassificationParameters"]

_CLASSES = 50  # where nobody says how many


@dataclass(frozen=True, kw_only=True)
class ClassificationParameters(Parameters):
    """2D classification."""

    classes: int | None = option(
        None, help="Number of classes; that of the --references, or 50 without, if not given.",
        minimum=1, maximum=2000,
    )  # fmt: skip
    diameter: float = option(help="Diameter of the particle.", unit="A", above=0)
    mask_diameter: float | None = option(
        None, help="Diameter of the circular mask; 1.2 times the particle's if not given.",
        unit="A", above=0,
    )  # fmt: skip
    iterations: int = option(
        25, help="Most iterations over the particles; the run stops before when it has settled.",
        minimum=1, maximum=999,
    )  # fmt: skip
    regularisation: float = option(
        1.0,
        help="Weight T of the data against the prior of the averages; less is smoother. The "
        "prior is not RELION's: 1 here is about as smooth as 2 there.",
        above=0,
    )
    resolution_limit: float | None = option(
        None, help="Finest detail used in alignment; as the data allow, to 8 A, if not given.",
        unit="A", above=0,
    )  # fmt: skip
    offset_range: float = option(
        20.0, help="Largest shift searched in the first iterations.", unit="A", minimum=0
    )
    offset_step: float = option(
        8.0, help="Step of the first shift search; later ones are finer, and shifts are refined.",
        unit="A", above=0,
    )  # fmt: skip
    psi_step: float | None = option(
        None, help="Step of the rotation search; as fine as the resolution asks if not given. "
        "Rotations are refined below it.", unit="deg", above=0, maximum=60,
    )  # fmt: skip
    ctf: Literal["full", "first-peak", "none"] = option(
        "full", help="Correct for the CTF; ignore it until its first peak; or not at all."
    )
    fill: Literal["zero", "noise"] = option(
        "zero", help="What is put outside the mask before alignment."
    )
    center_classes: bool = option(
        default=True, help="Keep the centre of mass of each average centred."
    )
    norm_correction: bool = option(
        default=True, help="Bring images of different brightness together."
    )
    scale_correction: bool = option(default=True, help="Fit one contrast for each micrograph.")
    junk: bool = option(
        default=True,
        help="Let a junk component take particles that fit no class, so that they do not blur "
        "the averages.",
    )
    batches: bool = option(
        default=True,
        help="Begin large sets with random parts of them; off: each iteration sees all.",
    )
    align: bool = option(
        default=True, help="Search rotations and shifts; off: keep those of the table."
    )
    update: bool = option(
        default=True, help="Update the averages; off: only assign particles to the --references."
    )
    seed: int = option(1, help="Seed of all random choices.", minimum=0)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return _CLASSES if self.classes is None else self.classes
