"""Take noise out of a field, and turn the phases that the CTF has turned, for people to look at."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cryopick.checks import require_shape
from cryopick.errors import ShapeError

__all__ = ["wiener_field"]

_WINDOW = 0.15  # of a frequency, either way, within which signal and noise are taken to be flat
_FEWEST_RINGS = 2
_LEAST_NOISE = 0.05  # of the power
_LEAST_SPREAD = 0.03  # variance of the squared CTF in a window, for noise to be told from signal
_LEAST_SHARE = 1e-4  # of the noise, that signal is taken to have


def wiener_field(image: Tensor, ctf: Tensor | None) -> Tensor:
    """Filter an image by the linear filter of least square error, and turn the phases.

    The power of signal and noise come from the image itself: where the CTF is zero there is noise
    alone, so in each range of frequencies the power is fitted by noise plus signal times the CTF
    squared; below the first zero the noise is that of the first zero.

    Parameters
    ----------
    image
        (y, x), real.
    ctf
        (y, x // 2 + 1), as `evaluate_ctf` gives it; None where it is not known, and then noise is
        what is flat in the spectrum, and no phase is turned.

    Returns
    -------
    Tensor
        (y, x) float32, mean 0.

    Raises
    ------
    ShapeError
        If the CTF does not fit the image.

    Notes
    -----
    With P = S c^2 + N the filter is sgn(c) c^2 S / (c^2 S + N): that of Wiener (1949) for the image
    of the particles as the lens shows it. The CTF is not divided out, which would blow up what is
    slow in the field.
    """
    require_shape(image, "y x", name="image")
    height, width = image.shape
    if ctf is not None and tuple(ctf.shape) != (height, width // 2 + 1):
        raise ShapeError(
            "ctf",
            must=f"have shape ({height}, {width // 2 + 1})",
            got=f"({', '.join(map(str, ctf.shape))})",
            remedy="Evaluate it for the size of the image",
        )
    transform = torch.fft.rfft2(image.float() - image.float().mean())
    power = transform.abs().square() / (height * width)
    ring, n_rings = _rings(height, width, image.device)
    c2 = torch.ones_like(power) if ctf is None else ctf.float().square()
    signal, noise = _powers(power, c2, ring, n_rings, has_ctf=ctf is not None)
    shown = c2 * signal[ring]
    gain = shown / (shown + noise[ring])
    if ctf is not None:
        gain = gain * torch.sign(ctf.float()) * _first_sign(ctf, ring)
    filtered: Tensor = torch.fft.irfft2(transform * gain, s=(height, width))
    return filtered.float()


def _rings(height: int, width: int, device: torch.device) -> tuple[Tensor, int]:
    """Give each sample the number of its ring; those beyond Nyquist belong to the last."""
    fy = torch.fft.fftfreq(height, device=device)[:, None]
    fx = torch.fft.rfftfreq(width, device=device)[None, :]
    n_rings = max(8, min(height, width) // 2)
    radius = (fy.square() + fx.square()).sqrt() * 2 * n_rings
    return radius.round().long().clamp(max=n_rings - 1), n_rings


def _powers(
    power: Tensor, c2: Tensor, ring: Tensor, n_rings: int, *, has_ctf: bool
) -> tuple[Tensor, Tensor]:
    """Fit noise and signal in a window of rings about each: (rings,) each."""
    terms = torch.stack([torch.ones_like(power), c2, c2.square(), power, power * c2])
    sums = torch.zeros(5, n_rings, dtype=torch.float64, device=power.device)
    sums.index_add_(1, ring.flatten(), terms.flatten(1).double())
    n, c, cc, p, pc = _windowed(sums)
    if not has_ctf:
        mean = p / n
        noise = mean[n_rings // 2 :].median().expand(n_rings)
        return (mean - noise).clamp(min=_LEAST_SHARE * noise).float(), noise.float()
    spread = n * cc - c.square()
    slope = (n * pc - c * p) / spread.clamp(min=1e-12)
    level = ((p - slope.clamp(min=0) * c) / n).clamp(min=_LEAST_NOISE * (p / n))
    noise = _extended(level, is_known=spread > _LEAST_SPREAD * n.square())
    signal = (pc - noise * c) / cc.clamp(min=1e-12)
    return torch.maximum(signal, _LEAST_SHARE * noise).float(), noise.float()


def _extended(level: Tensor, *, is_known: Tensor) -> Tensor:
    """Give each ring the noise of the nearest one where zeros of the CTF show it."""
    known = torch.nonzero(is_known)[:, 0]
    if not len(known):
        return level[len(level) // 2 :].median().expand(len(level))
    at = torch.arange(len(level), device=level.device)
    after = torch.searchsorted(known, at).clamp(max=len(known) - 1)
    return level[known[after]]


def _windowed(sums: Tensor) -> Tensor:
    """Add up the rings about each, the more the finer they are: periods of the CTF shrink less."""
    total = torch.cumsum(torch.nn.functional.pad(sums, (1, 0)), dim=1)
    n = sums.shape[1]
    at = torch.arange(n, device=sums.device)
    reach = (_WINDOW * at).long().clamp(min=_FEWEST_RINGS)
    return total[:, (at + reach + 1).clamp(max=n)] - total[:, (at - reach).clamp(min=0)]


def _first_sign(ctf: Tensor, ring: Tensor) -> float:
    """Sign of the CTF in its first lobe, so that dark particles stay dark."""
    low = ctf[(ring > 0) & (ring < max(3, int(ring.max()) // 16))]
    return math.copysign(1.0, float(low.mean())) if low.numel() else 1.0
