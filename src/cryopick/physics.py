"""Constants and the electron wavelength."""

from __future__ import annotations

import math

__all__ = ["electron_wavelength"]

_PLANCK = 6.62607015e-34  # J s
_ELECTRON_MASS = 9.1093837015e-31  # kg
_ELEMENTARY_CHARGE = 1.602176634e-19  # C
_LIGHT_SPEED = 299792458.0  # m/s


def electron_wavelength(voltage: float) -> float:
    """Relativistic de Broglie wavelength of an electron.

    Parameters
    ----------
    voltage
        Acceleration voltage in kV, above 0.

    Returns
    -------
    float
        Wavelength in A.

    Notes
    -----
    lambda = h / sqrt(2 m e V (1 + e V / (2 m c^2))), Reimer & Kohl,
    Transmission Electron Microscopy, eq. 2.5.

    Examples
    --------
    >>> round(electron_wavelength(300.0), 6)
    0.019687
    """
    volts = voltage * 1e3
    energy = _ELEMENTARY_CHARGE * volts
    relativistic = 1 + energy / (2 * _ELECTRON_MASS * _LIGHT_SPEED**2)
    return 1e10 * _PLANCK / math.sqrt(2 * _ELECTRON_MASS * energy * relativistic)
