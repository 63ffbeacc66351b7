"""How alike the members of a class are: noise-free projections, moved by their assigned poses.

The coherence of a member is the correlation of its moved projection with the mean of the other
members' (leave-one-out, so that a small class gets nothing for free), after a high-pass and in a
circle, so that all blobs do not look alike. 1 is a class of one view, well aligned. What members
drawn at random would have is measured, too (`random_coherence`).

Images are moved here by plain linear interpolation and not by the code that classifies, so that a
fault in that code cannot hide.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cryopick.checks import require_shape
from cryopick.image.filters import high_pass
from cryopick.image.fourier import frequency_grid
from cryopick.image.masks import circle_mask

__all__ = [
    "ClassCoherence",
    "Poses",
    "band_pass",
    "coherence_of_class",
    "move_images",
    "random_coherence",
]

_LONGEST = 0.2  # of the box: structures much longer than this do not count
_RADIUS = 0.48  # of the box: the circle in which images are compared
_BATCH_PIXELS = 1 << 22
_POOL = 400  # particles that random classes are drawn from
_DRAWS = 60  # random classes of each size

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Poses:
    """What brings images onto their classes: the shift first, then the turn, then the mirror."""

    psi: Floats  # (n,) deg, turns x towards y
    shift_x: Floats  # (n,) px
    shift_y: Floats  # (n,) px
    mirror: NDArray[np.bool_] | None = None  # (n,) x to -x; None: no image

    def __len__(self) -> int:
        return len(self.psi)

    def take(self, rows: Integers) -> Poses:
        """Poses of some images."""
        return Poses(
            psi=self.psi[rows],
            shift_x=self.shift_x[rows],
            shift_y=self.shift_y[rows],
            mirror=None if self.mirror is None else self.mirror[rows],
        )


class ClassCoherence(NamedTuple):
    """One class."""

    members: Tensor  # (n,) float64: coherence of each member; 0 for a member without others
    mean: Tensor  # (y, x): mean of the moved projections, band-passed, not masked


def move_images(images: Tensor, poses: Poses) -> Tensor:
    """Shift images, then turn them about pixel ``n // 2``, then mirror them there.

    Parameters
    ----------
    images
        (n, y, x) square, floating point.
    poses
        Of the n images. A point at x from the centre comes to lie at R (x + shift), where R
        turns x towards y by psi: RELION's rlnOriginXAngst, rlnOriginYAngst and rlnAnglePsi. The
        mirror then takes x to -x.

    Returns
    -------
    Tensor
        As `images`, interpolated linearly between pixels, 0 beyond the edge.

    Notes
    -----
    Linear interpolation smooths. That raises the coherence of turned images with detail near
    the Nyquist frequency by about 0.02, for every method alike.

    Raises
    ------
    ShapeError
        If images are not square.
    """
    require_shape(images, "n y y", name="images")
    size = images.shape[-1]
    centre = size // 2

    def column(values: Floats) -> Tensor:
        return torch.tensor(np.array(values, np.float64)).to(images)[:, None, None]

    steps = torch.arange(size, device=images.device, dtype=images.dtype) - centre
    x, y = steps[None, None, :], steps[None, :, None]
    if poses.mirror is not None:
        x = x * column(np.where(poses.mirror, -1.0, 1.0))
    psi = torch.deg2rad(column(poses.psi))
    cosine, sine = torch.cos(psi), torch.sin(psi)
    source_x = cosine * x + sine * y - column(poses.shift_x)
    source_y = cosine * y - sine * x - column(poses.shift_y)
    grid = torch.stack([source_x, source_y], dim=-1) + (centre + 0.5)
    moved = functional.grid_sample(images[:, None], grid * (2 / size) - 1, align_corners=False)
    return moved[:, 0]


def band_pass(images: Tensor) -> Tensor:
    """Take out structures much longer than a fifth of the box; (..., y, x) square, real."""
    size = images.shape[-1]
    fy, fx = frequency_grid((size, size), device=images.device, dtype=images.dtype)
    transfer = high_pass(torch.hypot(fy, fx), length=_LONGEST * size)
    passed: Tensor = torch.fft.irfft2(torch.fft.rfft2(images) * transfer, s=(size, size))
    return passed


def coherence_of_class(
    clean: Tensor, rows: Integers, poses: Poses, *, batch_size: int | None = None
) -> ClassCoherence:
    """Correlate each member of a class with the mean of the others.

    Parameters
    ----------
    clean
        (m, y, x) noise-free projections, floating point; only those of `rows` are touched, a
        batch at a time, so it may be a mapped file.
    rows
        (n,) the class's members in `clean`.
    poses
        (n,) of the members, in px of `clean`.
    batch_size
        Members held at once; by default as many as fit in about 0.2 GB.

    Returns
    -------
    ClassCoherence
        Nearly independent of `batch_size`: sums are rounded otherwise.
    """
    size = clean.shape[-1]
    mask = circle_mask(size, radius=_RADIUS * size, device=clean.device)
    step = batch_size or max(1, _BATCH_PIXELS // size**2)
    batches = [np.arange(i, min(i + step, len(rows))) for i in range(0, len(rows), step)]
    total = torch.zeros(int(mask.sum()), dtype=torch.float64, device=clean.device)
    mean = torch.zeros(size, size, dtype=torch.float64, device=clean.device)
    units = torch.zeros(0, device=clean.device)
    for batch in batches:
        moved = _moved(clean, rows[batch], poses.take(batch))
        units = _units(moved, mask)
        mean += moved.sum(0, dtype=torch.float64) / len(rows)
        total += units.sum(0, dtype=torch.float64)
    products = []
    for batch in batches:
        if len(batches) > 1:
            units = _units(_moved(clean, rows[batch], poses.take(batch)), mask)
        products.append(units @ total.to(units.dtype))
    product = torch.cat(products).double() if products else total[:0]
    return ClassCoherence(_leave_one_out(product, total.square().sum()), mean)


def random_coherence(
    clean: Tensor,
    rows: Integers,
    poses: Poses,
    sizes: Iterable[int],
    *,
    seed: int = 0,
) -> dict[int, tuple[float, float]]:
    """Measure the coherence of classes whose members and angles are drawn at random.

    Parameters
    ----------
    clean
        (m, y, x) noise-free projections.
    rows
        (n,) the particles to draw from.
    poses
        (n,) their poses; the shifts are kept, so that only view and angle are random.
    sizes
        Numbers of members.
    seed
        Of the draw.

    Returns
    -------
    dict
        For each size the mean coherence of random classes of that size and its standard
        deviation from class to class. Beyond a quarter of the particles drawn from (400 at
        most) both are those of that quarter: the mean hardly grows any more, and the deviation
        is then on the safe side.
    """
    draw = np.random.default_rng(seed)
    chosen = np.sort(draw.permutation(len(rows))[:_POOL])
    pool = poses.take(chosen)
    pool = Poses(
        psi=draw.uniform(-180, 180, len(chosen)), shift_x=pool.shift_x, shift_y=pool.shift_y
    )
    gram = _correlations(clean, rows[chosen], pool)
    largest = max(2, len(chosen) // 4)
    known: dict[int, tuple[float, float]] = {}
    results = {}
    for size in sorted(set(sizes)):
        count = min(max(size, 2), largest)
        if len(chosen) < 2:
            results[size] = (0.0, 0.0)
            continue
        if count not in known:
            own = np.random.default_rng([seed, count])
            members = [own.permutation(len(chosen))[:count] for _ in range(_DRAWS)]
            values = np.array([_random_class(gram, m) for m in members])
            known[count] = (float(values.mean()), float(values.std(ddof=1)))
        results[size] = known[count]
    return results


def _random_class(gram: Tensor, members: Integers) -> float:
    """Mean coherence of one class from the correlations of its members."""
    part = gram[members][:, members]
    return float(_leave_one_out(part.sum(1), part.sum()).mean())


def _leave_one_out(product: Tensor, total2: Tensor) -> Tensor:
    """Correlations of unit vectors u with S - u, from u . S and S . S; 0 where S = u."""
    rest2 = total2 - 2 * product + 1
    is_alone = rest2 < 1e-6
    rest = torch.sqrt(torch.where(is_alone, 1.0, rest2))
    return torch.where(is_alone, 0.0, (product - 1) / rest)


def _correlations(clean: Tensor, rows: Integers, poses: Poses) -> Tensor:
    """Correlations of all pairs, (n, n) float64."""
    size = clean.shape[-1]
    mask = circle_mask(size, radius=_RADIUS * size, device=clean.device)
    step = max(1, _BATCH_PIXELS // size**2)
    batches = [np.arange(i, min(i + step, len(rows))) for i in range(0, len(rows), step)]
    units = [_units(_moved(clean, rows[b], poses.take(b)), mask) for b in batches]
    vectors = torch.cat(units) if units else torch.zeros(0, 1)
    return (vectors @ vectors.T).double().cpu()


def _moved(clean: Tensor, rows: Integers, poses: Poses) -> Tensor:
    images = clean[torch.from_numpy(rows).to(clean.device)]
    if images.dtype == torch.float16:
        images = images.float()
    return move_images(band_pass(images), poses)


def _units(images: Tensor, mask: Tensor) -> Tensor:
    """Pixels in the mask, (n, pixels), of mean 0 and length 1; 0 for an empty image."""
    pixels = images[:, mask]
    pixels = pixels - pixels.mean(1, keepdim=True)
    return functional.normalize(pixels, dim=1)
