"""What a consensus writes beside its picks."""

from __future__ import annotations

from dataclasses import dataclass

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, option

__all__ = ["ConsensusOutputParameters"]


@dataclass(frozen=True, kw_only=True)
class ConsensusOutputParameters(Parameters):
    """Particles cut out, and tables for other programs."""

    particles: bool = option(default=True, help="Extract the particles that were kept.")
    particle_size: int | None = option(
        None,
        help="Shrink particles to this side by Fourier cropping, as Deep Consensus does to 128; "
        "the side of the box if not given.",
        unit="px",
        minimum=2,
        even=True,
    )
    xmd: bool = option(
        default=True,
        help="Write Xmipp's tables as well, with the score as zScoreDeepLearning1.",
    )

    def check_together(self) -> None:
        """Check that no size is asked of particles that are not extracted.

        Raises
        ------
        ParameterError
            If it is.
        """
        if self.particle_size is not None and not self.particles:
            raise ParameterError(
                "particle_size",
                must="be left out with --no-particles",
                got=f"{self.particle_size} px",
                remedy="Leave out one of the two",
            )
