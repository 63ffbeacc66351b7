"""Where a picker takes the CTF of a micrograph from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cryopick.parameters import Parameters, option

__all__ = ["PickingCtfParameters"]


@dataclass(frozen=True, kw_only=True)
class PickingCtfParameters(Parameters):
    """CTF of the micrographs."""

    ctf: Literal["auto", "table", "estimate", "ignore"] = option(
        "auto",
        help="auto: from the table, and estimated where it has none; table: never estimated; "
        "estimate: whatever the table says; ignore: search as if there were no lens, as is done, "
        "with a warning, wherever no CTF can be trusted.",
    )
    voltage: float | None = option(
        None, help="Of the microscope, instead of what the table says.", unit="kV", above=0
    )
    spherical_aberration: float | None = option(
        None, help="Of the lens, instead of what the table says.", unit="mm", minimum=0
    )
    amplitude_contrast: float | None = option(
        None,
        help="As a fraction, instead of what the table says; 0.1 if nobody says.",
        minimum=0,
        maximum=1,
    )

    @property
    def lens(self) -> dict[str, float | None]:
        """What is given of the lens."""
        return {
            "voltage": self.voltage,
            "spherical_aberration": self.spherical_aberration,
            "amplitude_contrast": self.amplitude_contrast,
        }
