"""The CTF of one micrograph as a value that can be handed about."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cryopick.ctf.evaluate import evaluate_ctf

__all__ = ["FieldCtf"]


class FieldCtf(NamedTuple):
    """CTF of one micrograph."""

    defocus_u: float  # A, underfocus positive
    defocus_v: float  # A
    defocus_angle: float  # deg from x to the direction of defocus_u
    voltage: float  # kV
    spherical_aberration: float  # mm
    amplitude_contrast: float  # fraction
    phase_shift: float = 0.0  # deg

    def evaluate(
        self,
        shape: tuple[int, int],
        *,
        pixel_size: float,
        device: torch.device | str = "cpu",
        until_first_peak: bool = False,
    ) -> Tensor:
        """Evaluate it at the samples of ``rfft2`` of an image.

        Parameters
        ----------
        shape
            (y, x) of the image, px.
        pixel_size
            A/px.
        device
            Of the result.
        until_first_peak
            Whether to put 1 beyond the first peak.

        Returns
        -------
        Tensor
            (y, x // 2 + 1) float32.

        Raises
        ------
        ParameterError
            If `pixel_size` or the voltage is not above 0.
        """
        return evaluate_ctf(
            shape,
            pixel_size=pixel_size,
            device=device,
            until_first_peak=until_first_peak,
            **self._asdict(),
        )[0]
