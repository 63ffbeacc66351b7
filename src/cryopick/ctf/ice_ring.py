"""How strongly ice scatters in a field: the ring at 3.7 A, against the rings beside it."""

from __future__ import annotations

import math

import torch

from cryopick.ctf.spectrum import MeanSpectrum
from cryopick.image.fourier import frequency_grid

__all__ = ["FINEST", "measure_ice_ring"]

FINEST = 3.2  # A, of the rings that are looked at
_RING = (3.95, 3.5)  # A
_BESIDE = ((4.6, 4.15), (3.38, FINEST))


def measure_ice_ring(spectrum: MeanSpectrum) -> float:
    """Compare the power from 3.95 to 3.5 A with what its neighbours let expect there.

    Parameters
    ----------
    spectrum
        Mean over tiles.

    Returns
    -------
    float
        1 where there is no ring; it grows with the thickness of the ice, and crystals raise it
        far above that. NaN where the spectrum ends before 3.2 A.

    Notes
    -----
    Vitreous ice scatters most at 3.7 A, and crystalline ice at 3.90, 3.67 and 3.44 A (Dubochet et
    al., Q. Rev. Biophys. 21 (1988) 129). The logarithm of the power between 4.6 and 4.15 A and
    between 3.38 and 3.2 A is drawn through by a straight line over the frequency. The axes of the
    spectrum, where lines of a detector show, are left out.
    """
    side = spectrum.power.shape[0]
    step = 1 / (side * spectrum.pixel_size)
    if side // 2 * step < 1 / FINEST:
        return math.nan
    fy, fx = frequency_grid((side, side), pixel_size=spectrum.pixel_size, dtype=torch.float64)
    frequency = (fy * fy + fx * fx).sqrt()
    is_off_axis = (fx.abs() > 1.5 * step) & (fy.abs() > 1.5 * step)

    def band(limits: tuple[float, float]) -> tuple[float, float]:
        is_inside = (frequency >= 1 / limits[0]) & (frequency <= 1 / limits[1]) & is_off_axis
        power = float(spectrum.power[is_inside].mean())
        return float(frequency[is_inside].mean()), math.log(power) if power > 0 else math.nan

    (middle, found), (low, below), (high, above) = (band(one) for one in (_RING, *_BESIDE))
    share = (middle - low) / (high - low)
    return math.exp(found - (1 - share) * below - share * above)
