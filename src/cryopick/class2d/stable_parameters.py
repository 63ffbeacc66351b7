"""What a user can choose about stable 2D classes; the names are those of SPHIRE's ISAC2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, option

__all__ = ["StableOptions", "StableParameters"]

_MOST_CLASSES = 200  # where nobody says how many images a class has
_FEWEST_IMAGES = 50  # in a class, then
_MINIMUM_SHARE = 0.6  # of the images per class
_RADIUS = 29  # px, target radius that thld_err refers to


@dataclass(frozen=True, kw_only=True)
class StableOptions(Parameters):
    """Stable 2D classification."""

    img_per_grp: int = option(
        -1, help="Images per class, which sets the number of classes; -1: what gives 200 classes, "
        "but at least 50.", minimum=-1,
    )  # fmt: skip
    minimum_grp_size: int = option(
        -1, help="A class is kept if it has more stable images than this; -1: 60 % of the images "
        "per class.", minimum=-1,
    )  # fmt: skip
    ctf: Literal["flip", "full", "none"] = option(
        "flip", help="Turn the phases that the CTF has flipped; weigh by the full CTF; or neither."
    )
    vpp: bool = option(
        default=False, help="Whiten the images, for data of a phase plate; with --ctf none only."
    )
    target_radius: int = option(
        _RADIUS, help="Radius that the particle is resized to.", unit="px", minimum=8, maximum=200
    )
    target_nx: int = option(
        76, help="Side that the resized images are cut or padded to.", unit="px", minimum=20,
        maximum=600,
    )  # fmt: skip
    xr: int = option(
        1, help="Range of the shift search along x, in pixels of the resized images.", unit="px",
        minimum=0, maximum=20,
    )  # fmt: skip
    yr: int = option(
        -1, help="Range of the shift search along y; -1: that along x.", unit="px", minimum=-1,
        maximum=20,
    )  # fmt: skip
    ts: float = option(1.0, help="Step of the shift search.", unit="px", above=0, maximum=10)
    ir: int = option(1, help="Pixels nearer to the centre are left out.", unit="px", minimum=0)
    rs: int = option(
        1, help="Every how many rings are compared; more is faster and coarser.", minimum=1,
        maximum=4,
    )  # fmt: skip
    maxit: int = option(
        30, help="Most iterations of a reference-free alignment, of all images or of a class.",
        minimum=4, maximum=999,
    )  # fmt: skip
    center_method: int = option(
        0, help="Centring of the average in the prealignment: 0 none, -1 the mean shift is taken "
        "away, 1 centre of mass.", minimum=-1, maximum=1,
    )  # fmt: skip
    dst: float = option(
        90.0, help="Jumps in angle by multiples of this in every fourth iteration of the alignment "
        "of a class; 0: none.", unit="deg", minimum=0, maximum=180,
    )  # fmt: skip
    fl: float = option(
        0.2, help="Lowest cut-off of the tangent filter.", unit="1/px", above=0, maximum=0.5
    )
    fh: float = option(
        0.45, help="Highest cut-off of the tangent filter.", unit="1/px", above=0, maximum=0.5
    )
    ff: float = option(0.2, help="Fall-off of the tangent filter.", above=0, maximum=1)
    init_iter: int = option(
        7, help="Most rounds of assignment with all classes in a partition.", minimum=1, maximum=99
    )
    main_iter_limit: int = option(
        -1, help="Most main iterations; -1: until no class is found any more.", minimum=-1
    )
    stab_ali: int = option(
        5,
        help="Alignments of a class in the test of stability; each leaves out another part of "
        "its images, one over this number.",
        minimum=2,
        maximum=20,
    )
    thld_err: float = option(
        0.7, help="Pixel error below which an image is stable, for a target radius of 29 px; it is "
        "scaled with the target radius.", unit="px", above=0,
    )  # fmt: skip
    indep_run: int = option(
        3, help="Independent partitions, which a class must come out of alike.", minimum=2,
        maximum=10,
    )  # fmt: skip
    reproducibility: float = option(
        0.2, help="Least overlap (Jaccard index) of a class between the independent partitions.",
        minimum=0, maximum=1,
    )  # fmt: skip
    decoys: float = option(
        1.0, help="Share of images of noise, like the particles in power, that may pass the test "
        "against the classes.", unit="%", above=0, maximum=50,
    )  # fmt: skip
    refine: bool = option(
        default=True, help="Refine the accepted classes at the end by likelihood, with the CTF, "
        "and choose their members again among all images.",
    )  # fmt: skip
    assignment: Literal["transport", "greedy"] = option(
        "transport", help="Equal sizes by optimal transport within bounds, or strictly, best "
        "images first.",
    )  # fmt: skip
    size_tolerance: float = option(
        0.5, help="How far sizes may be from equal with --assignment transport, as a share.",
        minimum=0, below=1,
    )  # fmt: skip
    filament_width: float = option(
        -1, help="Width of filaments, for rectangular masks; -1: no filaments.", unit="px",
        minimum=-1,
    )  # fmt: skip
    filament_mask_ignore: bool = option(
        default=False, help="Use the mask of a filament to normalise the image only."
    )
    skip_prealignment: bool = option(
        default=False, help="Take the images as centred; no prealignment."
    )
    seed: int = option(1, help="Seed of all random choices.", minimum=0)

    def check_together(self) -> None:
        """Refuse values that contradict each other.

        Raises
        ------
        ParameterError
            If whitening and CTF are both asked for, limits of the filter are in the wrong order,
            the resized particle does not fit its box, or a group is larger than a class.
        """
        if self.vpp and self.ctf != "none":
            _refuse("vpp", "be off unless --ctf is none", "on", "Give --ctf none, or leave --vpp")
        if self.fl > self.fh:
            _refuse("fl", f"be at most fh ({self.fh:g} 1/px)", f"{self.fl:g} 1/px", "Lower --fl")
        if self.target_nx < 2 * self.target_radius + 2:
            least = 2 * self.target_radius + 2
            _refuse("target_nx", f"be at least {least} px", f"{self.target_nx} px", "Raise it")
        for name in ("img_per_grp", "minimum_grp_size"):
            if getattr(self, name) == 0:
                _refuse(name, "be -1 or above 0", "0", "Give -1 for the default")
        if self.img_per_grp > 0 and self.minimum_grp_size > self.img_per_grp:
            _refuse(
                "minimum_grp_size", f"be at most img_per_grp ({self.img_per_grp})",
                str(self.minimum_grp_size), "Lower --minimum-grp-size",
            )  # fmt: skip
        if self.filament_mask_ignore and self.filament_width <= 0:
            _refuse("filament_mask_ignore", "be off without filaments", "on", "Leave it out")

    def images_per_class(self, n_images: int) -> int:
        """Images per class of a data set."""
        if self.img_per_grp > 0:
            return self.img_per_grp
        return max(_FEWEST_IMAGES, n_images // _MOST_CLASSES)

    def least_size(self, n_images: int) -> int:
        """Give the number of stable images that a class must exceed."""
        if self.minimum_grp_size > 0:
            return self.minimum_grp_size
        return int(_MINIMUM_SHARE * self.images_per_class(n_images))

    @property
    def range_y(self) -> int:
        """Range of the shift search along y, px."""
        return self.xr if self.yr < 0 else self.yr

    @property
    def working_size(self) -> int:
        """Side of the resized images, px: the target size, and room for shifts."""
        return self.target_nx + max(self.xr - 1, 0)

    @property
    def pixel_error_limit(self) -> float:
        """Limit of the pixel error at the target radius, px."""
        return self.thld_err * self.target_radius / _RADIUS

    def cut_offs(self) -> tuple[float, ...]:
        """Cut-offs of the filter round by round, from `fl` to `fh`, 1/px."""
        if self.init_iter == 1:
            return (self.fh,)
        step = (self.fh - self.fl) / (self.init_iter - 1)
        return tuple(self.fl + step * i for i in range(self.init_iter))


@dataclass(frozen=True, kw_only=True)
class StableParameters(StableOptions):
    """Stable 2D classification of particles whose size is known."""

    radius: float = option(
        help="Radius of the particle, in pixels of the input.", unit="px", above=0
    )


def _refuse(name: str, must: str, got: str, remedy: str) -> None:
    raise ParameterError(name, must=must, got=got, remedy=remedy)
