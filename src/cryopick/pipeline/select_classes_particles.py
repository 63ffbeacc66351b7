"""The particles of selected classes: regrouped, and moved with averages that are centred."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cryopick.class2d.centring import centre_averages, centre_of_mass_shift, compose_shift
from cryopick.tables.classification import Classification
from cryopick.tables.model import Particles
from cryopick.tables.paths import rename_for

__all__ = ["CentredAverages", "move_particles", "recenter_averages", "regroup", "select_members"]

_ROUNDS = 20
_SETTLED = 0.005  # px
_POSE = ("psi", "shift_x", "shift_y")


class CentredAverages(NamedTuple):
    """Averages with their centre of mass in the middle, and how they came there."""

    images: NDArray[np.float32]  # (k, y, x)
    shift_x: NDArray[np.float64]  # (k,) px, by which the content has moved
    shift_y: NDArray[np.float64]  # (k,) px


def recenter_averages(
    averages: NDArray[np.float32], *, mask_radius: float | None
) -> CentredAverages:
    """Move the positive density of averages to the middle.

    Parameters
    ----------
    averages
        (k, n, n), white on 0.
    mask_radius
        Density further from the middle does not count, px; None is the edge of the box.

    Notes
    -----
    The mask stays where it is while the density moves, so what it cut off comes into view:
    repeated until the centre of mass inside it is the middle. One round is what RELION does.
    """
    images = torch.from_numpy(np.ascontiguousarray(averages)).double()
    limit = averages.shape[-1] / 4 if mask_radius is None else mask_radius
    x = torch.zeros(len(images), dtype=torch.float64)
    y, moved = x.clone(), images
    for _ in range(_ROUNDS):
        step_x, step_y = centre_of_mass_shift(moved, max_shift=limit, mask_radius=mask_radius)
        if not len(images) or torch.hypot(step_x, step_y).max() < _SETTLED:
            break
        x, y = x + step_x, y + step_y
        longest = (limit / torch.hypot(x, y).clamp_min(1e-12)).clamp_max(1.0)
        x, y = x * longest, y * longest
        moved = centre_averages(images, shift_x=x, shift_y=y)
    return CentredAverages(moved.float().numpy(), x.numpy(), y.numpy())


def select_members(
    run: Classification, is_selected: NDArray[np.bool_], *, target: Path
) -> Particles:
    """Take the particles of some classes, in the order of the table.

    Parameters
    ----------
    run
        The classification.
    is_selected
        (k,) of its classes.
    target
        File that the table is for; images are named so that they are found from there.

    Returns
    -------
    Particles
        All columns; only the optics groups that are in use.
    """
    chosen = np.concatenate([[False], is_selected])  # class 0 is none
    rows = run.particles.rows
    rows = rows[chosen[rows["class_number"].to_numpy(np.int64)]]
    source, optics = run.particles.source, run.particles.optics
    names = {n: rename_for(n, source=source, target=target) for n in rows["image"].unique()}
    return Particles(
        rows=rows.assign(image=rows["image"].map(names)),
        optics=optics[optics["optics_group"].isin(rows["optics_group"])],
        source=source,
    )


def move_particles(
    particles: Particles, centred: CentredAverages, *, pixel_size: float
) -> Particles:
    """Change the origins of particles so that they fit their averages after these have moved.

    Parameters
    ----------
    particles
        With class_number, psi (deg), shift_x, shift_y (A).
    centred
        Of all classes of the run.
    pixel_size
        Of the averages, A/px.
    """
    rows = particles.rows
    place = rows["class_number"].to_numpy(np.int64) - 1
    pose = [torch.from_numpy(rows[n].to_numpy(np.float64).copy()) for n in _POSE]
    x, y = compose_shift(
        *pose,
        class_shift_x=torch.from_numpy(pixel_size * centred.shift_x[place]),
        class_shift_y=torch.from_numpy(pixel_size * centred.shift_y[place]),
    )
    moved = rows.assign(shift_x=x.numpy(), shift_y=y.numpy())
    return Particles(rows=moved, optics=particles.optics, source=particles.source)


def regroup(particles: Particles, groups: pd.DataFrame, *, n_groups: int) -> Particles:
    """Join groups of like contrast into fewer, larger ones.

    Groups are sorted by their scale correction and filled up to the same number of particles;
    no group is cut in two.

    Parameters
    ----------
    particles
        With group_number.
    groups
        group_number and scale_correction of the run.
    n_groups
        About so many are made: fewer where a single one holds more than its share.

    Returns
    -------
    Particles
        With new numbers in group_number, from 1 in order of the scale, and names in rlnGroupName.
    """
    rows = particles.rows
    counts = rows["group_number"].value_counts().sort_index()
    scale = groups.set_index("group_number")["scale_correction"].reindex(counts.index)
    order = scale.sort_values(kind="stable").index
    size = counts.reindex(order).to_numpy(np.float64)
    middle = np.cumsum(size) - size / 2
    filled = np.floor(middle * n_groups / max(size.sum(), 1)).astype(np.int64)
    number = pd.Series(np.unique(filled, return_inverse=True)[1] + 1, order)
    new = rows["group_number"].map(number).astype(np.int64)
    named = new.map({n: f"group_{n:03d}" for n in new.unique()}).astype(str)
    return Particles(
        rows=rows.assign(group_number=new, rlnGroupName=named),
        optics=particles.optics,
        source=particles.source,
    )
