"""What a user can choose about picking with a trained network, and about training one."""

from __future__ import annotations

from dataclasses import dataclass

from cryopick.parameters import Parameters, option

__all__ = ["NetworkParameters", "NetworkTrainingParameters"]


@dataclass(frozen=True, kw_only=True)
class NetworkParameters(Parameters):
    """Network picking."""

    diameter: float = option(help="Diameter of the particle.", unit="A", above=0)
    threshold: float | None = option(
        None,
        help="Least probability of a pick; what the model says if not given. Peaks below 0.002 are "
        "not stored.",
        minimum=0.002,
        maximum=1,
    )
    min_distance: float | None = option(
        None, help="Least distance of two picks; 0.7 diameters if not given.", unit="A", above=0
    )
    edge_distance: float = option(
        0.2,
        help="Least distance of a pick from the edge, as a fraction of the diameter.",
        minimum=0,
        maximum=5,
    )
    white_particles: bool = option(
        default=False, help="The particles are brighter than their surroundings."
    )
    mask: bool = option(
        default=True, help="Leave out ice, carbon and holes larger than a particle."
    )
    tile: int = option(
        1024,
        help="Side of the part of a field that the network sees at once, in its own pixels, 24 to "
        "a diameter. Less needs less memory and gives the same picks.",
        unit="px",
        minimum=32,
    )
    write_fom_maps: bool = option(
        default=False, help="Write the maps of probability in which the peaks were sought."
    )

    @property
    def distance(self) -> float:
        """Least distance of two picks, A."""
        return 0.7 * self.diameter if self.min_distance is None else self.min_distance


@dataclass(frozen=True, kw_only=True)
class NetworkTrainingParameters(Parameters):
    """Training of a network."""

    diameter: float = option(help="Diameter of the particle.", unit="A", above=0)
    particles_per_micrograph: float | None = option(
        None,
        help="Particles in a micrograph on average, labelled or not; estimated if not given.",
        above=0,
    )
    rejected_weight: float = option(
        0.5,
        help="How much a rejected particle counts as none, from 0 to 1.",
        minimum=0,
        maximum=1,
    )
    steps: int = option(
        600, help="Steps of training at most; it stops before when it learns no more.", minimum=1
    )
    validation_share: float = option(
        0.2,
        help="Least share of the labels, in micrographs of their own, to validate on.",
        above=0,
        maximum=0.5,
    )
    max_micrographs: int = option(
        200,
        help="Micrographs to use at most, chosen at random; more teach little that is new.",
        minimum=2,
    )
    from_scratch: bool = option(
        default=False, help="Begin from random weights instead of the general model."
    )
    white_particles: bool = option(
        default=False, help="The particles are brighter than their surroundings."
    )
    mask: bool = option(
        default=True, help="Do not learn from ice, carbon and holes larger than a particle."
    )
    seed: int = option(1, help="Seed of all random choices.", minimum=0)
