"""What is measured of each class of a 2D classification, for its score.

Everything is relative to the mask, to the noise or to the run, so that no measure depends on the
pixel size, on the scale of the densities or on the program that made the classes. What is not
known (a bare stack has no resolution, RELION no halves) is NaN, which the score can do without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cryopick.checks import require_shape
from cryopick.selection.class_images import find_mask_radius, make_pictures
from cryopick.selection.class_looks import LOOKS, describe_looks, typical_value
from cryopick.selection.class_scores import ClassInputs
from cryopick.tables.classification import Classification

__all__ = ["FEATURES", "GROUPS", "class_inputs"]

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {  # what is told, and left out, together
    "resolution": ("detail", "detail_in_run", "information", "information_per_particle"),
    "halves": ("frc_mean", "frc_detail"),
    "accuracy": ("turn_accuracy", "shift_accuracy"),
    "size": ("size", "size_in_run"),
    "certainty": ("certainty",),
    "members": ("likelihood", "junk_share"),
    "brightness": ("norm", "norm_spread"),
    "shifts": ("shift_spread_in_run",),
    **LOOKS,
}
FEATURES: Final = tuple(name for names in GROUPS.values() for name in names)

_FRC_LIMIT = 0.143
_COARSEST, _FINEST = 1.5, 14.0  # details across the mask between which halves are compared

Floats = NDArray[np.float64]


def class_inputs(
    averages: NDArray[np.floating],
    *,
    pixel_size: float | None = None,
    mask_diameter: float | None = None,
    classification: Classification | None = None,
) -> ClassInputs:
    """Measure the classes of a run, or the averages of a bare stack.

    Parameters
    ----------
    averages
        (k, n, n), particles white, in the order of the class numbers.
    pixel_size
        A/px of the averages; needed for `mask_diameter` and for anything in A.
    mask_diameter
        A; without it the mask is found from the averages.
    classification
        The run that made them; None leaves all that only a run knows NaN.

    Returns
    -------
    ClassInputs
        ``features`` has the columns class_number, particle_count, resolution (A) and `FEATURES`.

    Raises
    ------
    ShapeError
        If the averages are not square, or not one for each class.
    """
    require_shape(averages, "k n n", name="averages")
    if classification is not None:
        require_shape(averages, f"{classification.n_classes} n n", name="averages")
    images = torch.from_numpy(np.nan_to_num(np.asarray(averages, np.float64)))
    radius = _mask_radius(images, pixel_size, mask_diameter)
    pictures = make_pictures(images, mask_radius=radius)
    numbers = np.arange(1, len(images) + 1)
    table = pd.DataFrame(np.nan, index=range(len(images)), columns=list(FEATURES))
    counts = np.where(pictures.deviation.numpy() > 0, np.nan, 0.0)
    resolution = np.full(len(images), np.nan)
    if classification is not None:
        diameter = 2 * radius * classification.model.pixel_size
        counts = classification.member_counts.astype(np.float64)
        resolution = _resolutions(classification)
        for name, values in _run_features(classification, counts, resolution, diameter).items():
            table[name] = values
    for name, values in describe_looks(pictures, counts=counts).items():
        table[name] = values
    is_empty = (counts == 0) | (pictures.deviation.numpy() == 0)
    table.loc[is_empty] = np.nan
    table.insert(0, "class_number", numbers)
    table.insert(1, "particle_count", counts)
    table.insert(2, "resolution", np.where(np.isfinite(resolution), resolution, np.nan))
    pixels = pictures.pixels.numpy().astype(np.float32)
    pixels[is_empty] = 0
    return ClassInputs(features=table, images=pixels)


def _mask_radius(
    images: torch.Tensor, pixel_size: float | None, mask_diameter: float | None
) -> float:
    if mask_diameter is None or not pixel_size:
        return find_mask_radius(images)
    return min(mask_diameter / (2 * pixel_size), images.shape[-1] / 2)


def _resolutions(run: Classification) -> Floats:
    if "estimated_resolution" not in run.classes.columns:
        return np.full(run.n_classes, np.nan)
    return run.classes["estimated_resolution"].to_numpy(np.float64)


def _run_features(
    run: Classification, counts: Floats, resolution: Floats, diameter: float
) -> dict[str, Floats]:
    """Gather what the tables of a run say; `diameter` is the mask's, A."""
    with np.errstate(divide="ignore", invalid="ignore"):
        detail = np.log2(diameter / resolution)
        detail[~np.isfinite(detail)] = np.nan
        mean_count = max(1.0, counts[counts > 0].mean()) if (counts > 0).any() else 1.0
        size = np.log10(counts)
        size[counts == 0] = np.nan
        information = _information(run, diameter)
        found = {
            "detail": detail,
            "detail_in_run": _relative(detail, counts),
            "information": information,
            "information_per_particle": information - size,
            "size": size,
            "size_in_run": size - np.log10(mean_count),
        }
    return (
        found
        | _halves(run, diameter)
        | _accuracies(run, diameter)
        | _members(run, counts, diameter)
    )


def _relative(values: Floats, counts: Floats) -> Floats:
    """Values less that of the run's typical particle, the median weighted by members."""
    known = np.isfinite(values) & (counts > 0)
    if not known.any():
        return np.full_like(values, np.nan)
    return np.asarray(values - typical_value(values[known], counts[known]))


def _is_ours(run: Classification) -> bool:
    return "soft_count" in run.classes.columns


def _by_class(run: Classification, name: str) -> Floats | None:
    """Take a column of the spectra as (classes, rings from 1 on); None if there is none."""
    if name not in run.spectra.columns:
        return None
    table = run.spectra.pivot_table(
        index="class_number", columns="spectral_index", values=name, aggfunc="first"
    ).reindex(index=range(1, run.n_classes + 1))
    return np.asarray(np.nan_to_num(table.to_numpy(np.float64)[:, 1:], posinf=0.0, neginf=0.0))


def _information(run: Classification, diameter: float) -> Floats:
    """Logarithm of the Shannon information of what is in the mask, sum of 2 pi r log2(1 + ssnr).

    r counts the details across the mask's `diameter`, A, so that the box does not count.
    """
    ssnr = _by_class(run, "ssnr")
    if ssnr is None:
        return np.full(run.n_classes, np.nan)
    rings = np.arange(1, ssnr.shape[1] + 1)
    share = diameter / (run.model.box_size * run.model.pixel_size)  # of the box's side
    bits = share**2 * (2 * np.pi * rings * np.log2(1 + np.maximum(ssnr, 0))).sum(1)
    return np.asarray(np.log10(np.maximum(bits, 1e-2)))


def _halves(run: Classification, diameter: float) -> dict[str, Floats]:
    """Agreement of half averages: mean correlation, and where it falls below 0.143."""
    frc = _by_class(run, "fsc")
    if frc is None or not np.any(frc):
        return {}
    share = diameter / (run.model.box_size * run.model.pixel_size)
    details = share * np.arange(1, frc.shape[1] + 1)  # across the mask, of each ring
    unknown = ~frc.any(1)
    compared = (details > _COARSEST) & (details <= _FINEST)
    if not compared.any():
        return {}
    mean = frc[:, compared].mean(1)
    mean[unknown] = np.nan
    fallen = (frc < _FRC_LIMIT) & (details > _COARSEST)
    first = np.where(fallen.any(1), fallen.argmax(1), frc.shape[1] - 1)
    detail = np.log2(details[first])
    detail[unknown] = np.nan
    return {"frc_mean": mean, "frc_detail": detail}


def _accuracies(run: Classification, diameter: float) -> dict[str, Floats]:
    """Logarithms of the smallest turn and shift told; another program's steps are others."""
    found: dict[str, Floats] = {}
    if not _is_ours(run):
        return found
    for name, column, unit in (
        ("turn_accuracy", "accuracy_rotations", 1.0),
        ("shift_accuracy", "accuracy_translations", diameter),
    ):
        if column in run.classes.columns:
            values = run.classes[column].to_numpy(np.float64) / unit
            found[name] = np.log10(np.where(values > 0, values, np.nan))
    return found


def _members(run: Classification, counts: Floats, diameter: float) -> dict[str, Floats]:
    """Means over the members of each class of what a run says of each particle."""
    rows = run.particles.rows
    number = rows["class_number"].to_numpy(np.int64)

    def mean(values: Floats) -> Floats:
        known = np.isfinite(values)
        size = np.bincount(number, known, minlength=run.n_classes + 1)[1:]
        total = np.bincount(number, np.where(known, values, 0.0), minlength=run.n_classes + 1)[1:]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(size > 0, total / size, np.nan))

    found: dict[str, Floats] = {}
    if "max_probability" in rows.columns:
        found["certainty"] = _relative(mean(rows["max_probability"].to_numpy(float)), counts)
    if "log_likelihood" in rows.columns and _is_ours(run):  # others have another origin
        values = rows["log_likelihood"].to_numpy(float)
        accepted = values[(number > 0) & np.isfinite(values)]
        middle = np.median(accepted) if len(accepted) else 0.0
        spread = np.median(np.abs(accepted - middle)) if len(accepted) else 1.0
        found["likelihood"] = mean(((values - middle) / max(spread, 1e-6)).clip(-5, 5))
    if "junk_probability" in rows.columns:
        found["junk_share"] = mean(rows["junk_probability"].to_numpy(float))
    if "norm_correction" in rows.columns and rows["norm_correction"].nunique() > 1:
        norm = rows["norm_correction"].to_numpy(float)  # all alike: nobody has corrected it
        norm = np.log(np.maximum(norm / max(float(np.nanmedian(norm)), 1e-6), 1e-3))
        average = mean(norm)
        spread2 = mean(norm**2) - average**2
        found |= {"norm": average, "norm_spread": np.sqrt(np.maximum(spread2, 0))}
    x, y = (rows[name].to_numpy(float) for name in ("shift_x", "shift_y"))
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.log2(np.maximum(np.sqrt(mean(x**2 + y**2)) / diameter, 1e-3))
    found["shift_spread_in_run"] = _relative(spread, counts)
    return found
