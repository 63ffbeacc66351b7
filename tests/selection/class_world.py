"""Averages that are easy to judge: particles by their projection, and what is none."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

SIZE = 64


def radius_and_angle(size: int = SIZE) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance from the middle in px, and angle."""
    y, x = np.indices((size, size)) - size // 2
    return np.hypot(y, x), np.arctan2(y, x)


def masked(image: NDArray[np.float64], *, radius: float = 25.0) -> NDArray[np.float32]:
    """Image inside a circle with a soft edge of 5 px, 0 outside."""
    distance, _ = radius_and_angle(image.shape[-1])
    edge = np.clip((radius + 5 - distance) / 5, 0, 1)
    return np.asarray(image * 0.5 * (1 - np.cos(math.pi * edge)), np.float32)


def particle(seed: int = 0, *, size: int = SIZE, noise: float = 0.05) -> NDArray[np.float64]:
    """A cluster of blobs in the middle, with some noise."""
    rng = np.random.default_rng(seed)
    y, x = (np.indices((size, size)) - size // 2) * (SIZE / size)
    image = np.zeros((size, size))
    for dy, dx in rng.normal(0, 6, (14, 2)):
        image += np.exp(-((y - dy) ** 2 + (x - dx) ** 2) / (2 * 2.2**2))
    return image + noise * image.std() * rng.standard_normal(image.shape)


def smooth_noise(seed: int = 0, *, width: float = 2.5) -> NDArray[np.float64]:
    """What an average of images without particles looks like."""
    rng = np.random.default_rng(seed)
    frequency = np.fft.fftfreq(SIZE)
    gaussian = np.exp(-2 * (math.pi * width) ** 2 * (frequency[:, None] ** 2 + frequency**2))
    return np.fft.ifft2(np.fft.fft2(rng.standard_normal((SIZE, SIZE))) * gaussian).real


def stack(*images: NDArray[np.floating]) -> NDArray[np.float32]:
    """Averages as a stack."""
    return np.stack([masked(np.asarray(i, np.float64)) for i in images])


def tensor(images: NDArray[np.float32]) -> torch.Tensor:
    """The same as a tensor."""
    return torch.from_numpy(images)
