"""What a user can choose about the consensus of pickers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, describe, option

__all__ = ["ConsensusParameters"]

_BOX = 1.5  # diameters, where nothing says it
_OF_METHODS = {
    "quorum": ("votes",),
    "threshold": ("reliability", "network"),
    "candidates": ("network",),
    "phase_flip": ("network",),
    "seed": ("network",),
    "mask": ("network",),
}


@dataclass(frozen=True, kw_only=True)
class ConsensusParameters(Parameters):
    """Consensus of coordinate sets."""

    diameter: float = option(help="Diameter of the particle.", unit="A", above=0)
    method: Literal["votes", "reliability", "network"] = option(
        "network",
        help="What decides: the number of pickers that have a candidate, the probability that "
        "follows from how far each picker can be trusted, or that together with networks, each "
        "trained on the micrographs that it does not judge.",
    )
    relative_radius: float = option(
        0.15,
        help="Picks so near to one another, as a fraction of the box, are of one particle.",
        above=0,
        maximum=1,
    )
    box_size: int | None = option(
        None,
        help="Side of the box in the micrographs; that of the first set which says it if not "
        "given, else 1.5 diameters.",
        unit="px",
        minimum=2,
    )
    quorum: int | None = option(
        None,
        help="Pickers that must have a candidate, with --method votes; 0 stands for all of them, "
        "and 2 if not given.",
        minimum=0,
    )
    threshold: float | None = option(
        None,
        help="Least probability of a pick, with --method reliability or network; 0.5 if not "
        "given, and -1 keeps all.",
        minimum=-1,
        maximum=1,
    )
    candidates: Literal["auto", "picked", "all"] = option(
        "auto",
        help="What is judged: picked, what is in a set; all, also what only networks have found; "
        "auto, all, but with a single set what is in it.",
    )
    phase_flip: bool = option(
        default=False,
        help="Flip the phases of the micrographs that networks see, by the CTF of --ctf or of the "
        "table of micrographs.",
    )
    seed: int = option(1, help="Seed of all random choices of the network.", minimum=0)
    white_particles: bool = option(
        default=False, help="The particles are brighter than their surroundings."
    )
    mask: bool = option(
        default=True, help="Do not learn from ice, carbon and holes larger than a particle."
    )
    min_distance: float | None = option(
        None,
        help="Least distance of two candidates; 0.5 diameters if not given.",
        unit="A",
        above=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for described in describe(type(self)):
            methods = _OF_METHODS.get(described.name, (self.method,))
            is_given = getattr(self, described.name) != described.default
            if is_given and self.method not in methods:
                raise ParameterError(
                    described.name,
                    must=f"be given with --method {' or '.join(methods)} only",
                    got=f"--method {self.method}",
                    remedy=f"Leave out {described.flag}, or change --method",
                )

        if self.threshold is not None and -1 < self.threshold < 0:
            raise ParameterError(
                "threshold",
                must="be a probability, or -1",
                got=f"{self.threshold:g}",
                remedy="Try -1 to keep all",
            )

    @property
    def distance(self) -> float:
        """Least distance of two candidates, A."""
        return 0.5 * self.diameter if self.min_distance is None else self.min_distance

    @property
    def usual_box(self) -> float:
        """Side of the box where nothing says it, A."""
        return _BOX * self.diameter

    def least_votes(self, n_pickers: int) -> int:
        """Pickers that must have a candidate."""
        return (2 if self.quorum is None else self.quorum) or n_pickers

    def adds_peaks(self, n_pickers: int) -> bool:
        """Whether what only networks have found is judged, too."""
        return self.candidates == "all" or (self.candidates == "auto" and n_pickers > 1)

    @property
    def least_probability(self) -> float:
        """Of a pick."""
        return 0.5 if self.threshold is None else self.threshold
