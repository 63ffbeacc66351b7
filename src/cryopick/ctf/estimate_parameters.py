"""Parameters of the CTF estimation."""

from __future__ import annotations

from dataclasses import dataclass

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, option

__all__ = ["CtfParameters"]


@dataclass(frozen=True, kw_only=True)
class CtfParameters(Parameters):
    """CTF estimation."""

    min_defocus: float = option(3000.0, help="Least underfocus to search.", unit="A", minimum=0)
    max_defocus: float = option(50000.0, help="Most underfocus to search.", unit="A", above=0)
    max_astigmatism: float = option(
        5000.0, help="Largest difference of the two defoci to search.", unit="A", minimum=0
    )
    min_resolution: float = option(
        30.0, help="Rings coarser than this are not fitted.", unit="A", above=0
    )
    max_resolution: float = option(
        4.0, help="Rings finer than this are not fitted.", unit="A", above=0
    )
    phase_shift: bool = option(default=False, help="Search the phase shift of a phase plate.")
    min_phase_shift: float = option(
        0.0, help="Least phase shift to search.", unit="deg", minimum=-180, maximum=180
    )
    max_phase_shift: float = option(
        180.0, help="Most phase shift to search.", unit="deg", minimum=-180, maximum=360
    )
    phase_shift_step: float = option(
        10.0, help="Step of the first search of the phase shift.", unit="deg", above=0, maximum=45
    )
    tile_size: int | None = option(
        None,
        help="Side of the tiles whose spectra are averaged; if not given, so large that the rings "
        "of the largest defocus are resolved.",
        unit="px",
        minimum=64,
        even=True,
    )

    def check_together(self) -> None:
        """Check that each range is one.

        Raises
        ------
        ParameterError
            If a lower limit is not below its upper limit.
        """
        _require_order("min_defocus", self.min_defocus, "max_defocus", self.max_defocus, "A")
        _require_order(
            "max_resolution", self.max_resolution, "min_resolution", self.min_resolution, "A"
        )
        if self.phase_shift:
            low, high = self.min_phase_shift, self.max_phase_shift
            _require_order("min_phase_shift", low, "max_phase_shift", high, "deg")


def _require_order(low_name: str, low: float, high_name: str, high: float, unit: str) -> None:
    if not low < high:
        raise ParameterError(
            low_name,
            must=f"be below {high_name} ({high:g} {unit})",
            got=f"{low:g} {unit}",
            remedy=f"Change --{low_name.replace('_', '-')}",
        )
