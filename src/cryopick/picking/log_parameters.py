"""Parameters of the blob picker: what both modes share, and what acts in one of them only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, describe, option

__all__ = ["LogParameters"]

_SHIPPED: dict[str, dict[str, Any]] = {
    "default": {
        "false_positives": 0.5,
        "min_distance": 0.75,
        "mask": True,
        "learn_profile": True,
    },
    "relion": {
        "adjust_threshold": 0.0,
        "upper_threshold": 99999.0,
        "neighbour_distance": 100.0,
        "max_resolution": 20.0,
        "optimise_scale": True,
        "max_search": 5,
        "outlier_zscore": 8.0,
        "skip_side": 0,
        "use_ctf": False,
        "random_seed": 1,
    },
}


def _only(mode: str, name: str, *, help: str, **limits: Any) -> Any:
    """Declare a parameter of one mode; None stands for the shipped value of that mode."""
    shipped = _SHIPPED[mode][name]
    word = {True: "yes", False: "no"}[shipped] if isinstance(shipped, bool) else f"{shipped:g}"
    return option(None, help=f"{help} Only in mode {mode}; {word} if not given.", **limits)


@dataclass(frozen=True, kw_only=True)
class LogParameters(Parameters):
    """Blob picking.

    A parameter that acts in one mode only is None unless the user gave it; giving it in the other
    mode is refused. `value` and `resolved` fill in the shipped values.
    """

    min_diameter: float = option(help="Smallest diameter of a particle.", unit="A", above=0)
    max_diameter: float = option(help="Largest diameter of a particle.", unit="A", above=0)
    mode: Literal["default", "relion"] = option(
        "default",
        help="default: scores comparable across micrographs; relion: RELION's algorithm.",
    )
    white_particles: bool = option(
        default=False, help="The particles are brighter than their surroundings."
    )
    write_fom_maps: bool = option(
        default=False, help="Write the maps in which the peaks were sought."
    )

    false_positives: float | None = _only(
        "default",
        "false_positives",
        help="False picks to expect in a micrograph of pure noise; it sets the threshold.",
        above=0,
    )
    min_distance: float | None = _only(
        "default",
        "min_distance",
        help="Least distance of two picks, as a fraction of the smallest diameter.",
        above=0,
        maximum=5,
    )
    mask: bool | None = _only(
        "default", "mask", help="Leave out ice, carbon and holes larger than a particle."
    )
    learn_profile: bool | None = _only(
        "default",
        "learn_profile",
        help="Search again with the mean profile of the first picks.",
    )

    adjust_threshold: float | None = _only(
        "relion",
        "adjust_threshold",
        help="Threshold in standard deviations above the mean response; more is stricter.",
        minimum=-1000,
        maximum=1e6,
    )
    upper_threshold: float | None = _only(
        "relion",
        "upper_threshold",
        help="Drop peaks this many standard deviations above the mean response (ice, dirt).",
        minimum=-1000,
        maximum=1e6,
    )
    neighbour_distance: float | None = _only(
        "relion",
        "neighbour_distance",
        help="Least distance of two picks, as a share of detected plus smallest radius.",
        unit="%",
        minimum=0,
    )
    max_resolution: float | None = _only(
        "relion",
        "max_resolution",
        help="Shrink micrographs to this resolution first; 0 works at full size.",
        unit="A",
        minimum=0,
    )
    optimise_scale: bool | None = _only(
        "relion", "optimise_scale", help="Shrink to a size whose Fourier transform is fast."
    )
    max_search: int | None = _only(
        "relion",
        "max_search",
        help="Compare with blobs up to this factor smaller and larger.",
        minimum=1,
        maximum=50,
    )
    outlier_zscore: float | None = _only(
        "relion",
        "outlier_zscore",
        help="Replace pixels this many standard deviations from the mean.",
        above=0,
    )
    skip_side: int | None = _only(
        "relion",
        "skip_side",
        help="Find nothing this close to an edge; half the smallest diameter at least.",
        unit="px",
        minimum=0,
    )
    use_ctf: bool | None = _only(
        "relion", "use_ctf", help="Divide by the CTF up to its first peak."
    )
    random_seed: int | None = _only(
        "relion",
        "random_seed",
        help="Seed of the noise that pads a micrograph to a square.",
        minimum=0,
    )

    def check_together(self) -> None:
        """Check the diameters, and that no parameter of the other mode was given.

        Raises
        ------
        ParameterError
            If the smallest diameter is above the largest, or a parameter would be ignored.
        """
        if self.min_diameter > self.max_diameter:
            raise ParameterError(
                "min_diameter",
                must=f"be at most max_diameter ({self.max_diameter:g} A)",
                got=f"{self.min_diameter:g} A",
                remedy="Change --min-diameter or --max-diameter",
            )
        for name in self._foreign():
            if getattr(self, name) is not None:
                raise ParameterError(
                    name,
                    must=f"be left out in mode {self.mode}, where it does nothing",
                    got=str(getattr(self, name)),
                    remedy=f"Remove --{name.replace('_', '-')} or choose another --mode",
                )

    def value(self, name: str) -> Any:
        """Value of a parameter in this mode: the one given, else the shipped one.

        Examples
        --------
        >>> LogParameters(min_diameter=80, max_diameter=90, mode="relion").value("max_search")
        5
        """
        given = getattr(self, name)
        return _SHIPPED[self.mode].get(name) if given is None else given

    def resolved(self) -> dict[str, Any]:
        """All values that act in this mode, with the shipped ones filled in."""
        foreign = self._foreign()
        return {d.name: self.value(d.name) for d in describe(type(self)) if d.name not in foreign}

    def _foreign(self) -> set[str]:
        return {n for mode, own in _SHIPPED.items() if mode != self.mode for n in own} - set(
            _SHIPPED[self.mode]
        )
