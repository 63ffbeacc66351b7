"""How a consensus in stream waits, learns in passes, and ends."""

from __future__ import annotations

from dataclasses import dataclass

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, describe, option

__all__ = ["ConsensusStreamParameters"]

_OF_LEARNING = ("training_batch", "preliminary")
_GROWTH = 0.25  # of the micrographs of the last pass


@dataclass(frozen=True, kw_only=True)
class ConsensusStreamParameters(Parameters):
    """Micrographs and coordinates that arrive while it runs."""

    stream: bool = option(
        default=False,
        help="Wait for more micrographs and picks. A micrograph is taken when it is whole and "
        "every set names it; at the end, when one set does. What was taken stays as it was.",
    )
    extraction_batch: int = option(
        5, help="Micrographs that are taken and judged at once.", minimum=1
    )
    training_batch: int = option(
        5,
        help="New micrographs after which networks learn again from all so far, but no fewer than "
        "a quarter of them, so that the cost grows no faster than the data.",
        minimum=1,
    )
    preliminary: bool = option(
        default=False,
        help="While networks still learn, write what they make of the micrographs so far to "
        "preliminary/ in --out.",
    )
    close: bool = option(
        default=False, help="Take what is there and end, instead of waiting for more."
    )
    idle: float = option(
        0.0, help="End after so long without a new micrograph; 0 waits for a file named close in "
        "--out.", unit="min", minimum=0,
    )  # fmt: skip
    poll: float = option(
        5.0, help="Pause between two looks for new micrographs and picks.", unit="s", above=0
    )

    def check_together(self) -> None:
        """Check that nothing is asked of a stream where there is none.

        Raises
        ------
        ParameterError
            If an option is given without --stream.
        """
        for one in describe(type(self)):
            if not self.stream and getattr(self, one.name) != one.default:
                raise ParameterError(
                    one.name,
                    must="be given with --stream only",
                    got=f"{getattr(self, one.name)}",
                    remedy=f"Add --stream, or leave out {one.flag}",
                )

    def require_learning(self) -> None:
        """Refuse what has a say only while networks learn, where none does.

        Raises
        ------
        ParameterError
            If --training-batch or --preliminary is given.
        """
        for one in describe(type(self)):
            if one.name in _OF_LEARNING and getattr(self, one.name) != one.default:
                raise ParameterError(
                    one.name,
                    must="be left out where nothing is trained",
                    got=f"{getattr(self, one.name)}",
                    remedy=f"Leave out {one.flag}, or let networks be trained",
                )

    def is_due(self, n_taken: int, n_last: int) -> bool:
        """Whether networks should learn again.

        Parameters
        ----------
        n_taken
            Micrographs so far.
        n_last
            Those of the last pass; 0 before the first.
        """
        return n_taken - n_last >= max(self.training_batch, _GROWTH * n_last)
