"""What the score of a pick means: one column for all pickers, and the file says which it is.

The line stands above the table as a comment, which RELION skips:

    # rlnAutopickFigureOfMerit: Probability of a particle
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "LOG_ODDS",
    "PROBABILITY",
    "RELION_FIGURE",
    "UNKNOWN",
    "VOTES",
    "Z_SCORE",
    "PickScore",
    "read_pick_score",
    "score_comment",
]

_MARK = "rlnAutopickFigureOfMerit: "
_HEAD = 1000  # bytes of a file, within which its comment stands


@dataclass(frozen=True, kw_only=True)
class PickScore:
    """The meaning of a figure of merit."""

    meaning: str  # as an axis is labelled
    limits: tuple[float, float] | None = None  # lowest and highest there can be, if any


PROBABILITY = PickScore(meaning="Probability of a particle", limits=(0.0, 1.0))
Z_SCORE = PickScore(meaning="z-score (standard deviations of the noise)")
LOG_ODDS = PickScore(meaning="Topaz's score (logarithm of the odds for a particle)")
RELION_FIGURE = PickScore(meaning="Figure of merit of RELION's Laplacian of Gaussian")
VOTES = PickScore(meaning="Pickers that have found it")
UNKNOWN = PickScore(meaning="Score")
_KNOWN = {s.meaning: s for s in (PROBABILITY, Z_SCORE, LOG_ODDS, RELION_FIGURE, VOTES)}


def score_comment(score: PickScore) -> str:
    """Write what a score is, as a comment of `write_star`.

    Examples
    --------
    >>> score_comment(PROBABILITY)
    'rlnAutopickFigureOfMerit: Probability of a particle'
    """
    return _MARK + score.meaning


def read_pick_score(path: Path) -> PickScore:
    """Read what the scores of a file mean.

    Parameters
    ----------
    path
        A STAR file of picks.

    Returns
    -------
    PickScore
        `UNKNOWN` where the file does not say it, or cannot be read.
    """
    try:
        with Path(path).open("rb") as handle:
            head = handle.read(_HEAD).decode(errors="replace")
    except OSError:
        return UNKNOWN
    for line in f"\n{head}".partition("\ndata_")[0].splitlines():
        if line.startswith("# " + _MARK):
            meaning = line.removeprefix("# " + _MARK).strip()
            return _KNOWN.get(meaning, PickScore(meaning=meaning))
    return UNKNOWN
