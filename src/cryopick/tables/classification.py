"""One iteration of a 2D classification as plain tables and values, whatever program made it.

Spectra follow one scale, that of RELION's files: with F the Fourier transform of an image of
M x M pixels (unscaled, as `torch.fft.fft2` gives it), a spectrum is the mean of |F|^2 over a ring
divided by 2 M^4, the variance of the real or imaginary part of F / M^2. White noise of variance v
has sigma2 = v / (2 M^2) in the noise, and less if the images were masked: times the share of the
box inside the mask. The ssnr of a class is tau2_fudge tau2 / sigma2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.errors import TableError
from cryopick.tables.model import Particles, require_columns

__all__ = [
    "CLASSIFICATION_COLUMNS",
    "Classification",
    "ModelValues",
    "OptimiserValues",
    "SamplingValues",
    "group_by_micrograph",
]

CLASSIFICATION_COLUMNS: dict[str, str] = {
    # one row per class
    "image": "stack of the class average, as in its file",
    "image_index": "place of the average in its stack, from 0",
    "distribution": "share of the particles, soft",
    "accuracy_rotations": "deg, smallest turn the average can tell; NaN if not estimated",
    "accuracy_translations": "A, smallest shift the average can tell; NaN if not estimated",
    "estimated_resolution": "A, where the ssnr falls below 1; inf for an empty class",
    "completeness": "share of Fourier space that the particles fill",
    "prior_offset_x": "A, centre of the prior on shift_x",
    "prior_offset_y": "A, centre of the prior on shift_y",
    "particle_count": "particles that fit this class best; of a group, its particles",
    "soft_count": "sum of the posterior of this class",
    "entropy": "mean entropy of the posterior of the particles of this class, nats",
    # one row per class, or optics group, and Fourier ring
    "spectral_index": "radius of the ring in Fourier pixels, from 0",
    "frequency": "1/A",
    "resolution": "A; inf at the centre",
    "ssnr": "spectral signal-to-noise ratio of the average",
    "fsc": "Fourier shell correlation of half sets; 0 where there are none",
    "sigma2": "noise power, scale above",
    "tau2": "signal power, scale above",
    "orientability": "contribution of the ring to telling orientations apart",
    # one row per group
    "group_name": "micrograph, or the name of the group",
    "scale_correction": "factor on the references for the particles of the group",
}


@dataclass(frozen=True, kw_only=True)
class ModelValues:
    """What the classes have in common."""

    box_size: int  # px
    pixel_size: float  # A/px
    current_resolution: float  # A
    current_size: int  # px, side of the Fourier box in use
    tau2_fudge: float = 2.0  # T, factor on tau2
    sigma_offset: float = 10.0  # A, spread of the prior on the shifts along one axis
    average_norm_correction: float = 1.0
    log_likelihood: float = 0.0
    average_max_probability: float = 0.0
    others: Mapping[str, object] = field(default_factory=dict)  # under the labels of their file


@dataclass(frozen=True, kw_only=True)
class SamplingValues:
    """The coarse grid of poses; the fine one halves its steps with each oversampling."""

    psi_step: float  # deg
    offset_range: float  # A
    offset_step: float  # A
    perturbation: float = 0.0  # of the grid in this iteration, in steps
    perturbation_factor: float = 0.5  # largest perturbation, in steps
    others: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OptimiserValues:
    """Where the run stands, and the parameters it goes on with."""

    iteration: int
    n_iterations: int
    random_seed: int
    particle_diameter: float  # A, of the mask
    mask_edge_px: int = 5
    oversampling: int = 1
    is_zero_masked: bool = True  # False: noise outside the mask
    is_solvent_flattened: bool = True
    highres_limit: float | None = None  # A, of the expectation step; None: as the data allow
    corrects_norm: bool = True
    corrects_scale: bool = True
    corrects_ctf: bool = True
    centers_classes: bool = True
    ignores_ctf_until_first_peak: bool = False
    is_phase_flipped: bool = False
    skips_alignment: bool = False
    has_converged: bool = False
    accuracy_rotations: float = np.nan  # deg, best class; NaN if not estimated
    accuracy_translations: float = np.nan  # A, best class
    changes_classes: float = 0.0  # share of the particles that changed class
    changes_orientations: float = 0.0  # deg, mean change of psi; RELION counts 359 deg as 359
    changes_offsets: float = 0.0  # A, root mean square change of the shift along one axis
    others: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Classification:
    """One iteration of a 2D classification; columns: `COLUMNS`, `CLASSIFICATION_COLUMNS`.

    Class numbers count from 1, in the order of the rows of `classes`; a particle of class 0 has
    none. Columns without one of our names keep the name their file gave them.

    Raises
    ------
    TableError
        If a column is missing, a particle or a spectrum has a class that does not exist, or a
        noise spectrum lacks a ring.
    """

    particles: Particles  # also class_number, psi, shift_x, shift_y, group_number
    model: ModelValues
    classes: pd.DataFrame  # distribution and any other
    spectra: pd.DataFrame  # class_number, spectral_index, ssnr, sigma2, tau2 and any other
    groups: pd.DataFrame  # group_number, group_name, particle_count, scale_correction
    noise: pd.DataFrame  # optics_group, spectral_index, sigma2: all rings 0 ... box_size // 2
    sampling: SamplingValues | None = None
    optimiser: OptimiserValues | None = None
    source: Path | None = None  # the file it was read from

    def __post_init__(self) -> None:
        name = str(self.source or "classification")
        pose = ("class_number", "psi", "shift_x", "shift_y", "group_number")
        require_columns(self.particles.rows, pose, table=f"{name}, particles,")
        require_columns(self.classes, ("distribution",), table=f"{name}, classes,")
        spectrum = ("class_number", "spectral_index", "ssnr", "sigma2", "tau2")
        require_columns(self.spectra, spectrum, table=f"{name}, spectra,")
        group = ("group_number", "group_name", "particle_count", "scale_correction")
        require_columns(self.groups, group, table=f"{name}, groups,")
        noise = ("optics_group", "spectral_index", "sigma2")
        require_columns(self.noise, noise, table=f"{name}, noise,")
        _check_numbers(self.particles.rows["class_number"], 0, self.n_classes, f"{name}, particles")
        _check_numbers(self.spectra["class_number"], 1, self.n_classes, f"{name}, spectra")
        _check_numbers(self.particles.rows["group_number"], 1, len(self.groups), f"{name}, groups")
        _check_noise(self.noise, self.particles.optics, self.model.box_size, name)

    @property
    def n_classes(self) -> int:
        """Number of classes, empty ones included."""
        return len(self.classes)

    @property
    def member_counts(self) -> NDArray[np.int64]:
        """Particles that fit each class best, (n_classes,)."""
        numbers = self.particles.rows["class_number"].to_numpy(np.int64)
        return np.bincount(numbers, minlength=self.n_classes + 1)[1:]


def _check_numbers(numbers: pd.Series, first: int, last: int, name: str) -> None:
    wrong = numbers[(numbers < first) | (numbers > last)]
    if len(wrong):
        raise TableError(
            f"{name}, {numbers.name},",
            must=f"be from {first} to {last}",
            got=f"{wrong.iloc[0]} in row {wrong.index[0] + 1}",
            remedy="Give the files of one iteration of one run",
        )


def _check_noise(noise: pd.DataFrame, optics: pd.DataFrame, box_size: int, name: str) -> None:
    rings = np.arange(box_size // 2 + 1)
    for group in optics["optics_group"]:
        there = noise.loc[noise["optics_group"] == group, "spectral_index"]
        if not np.array_equal(there, rings):
            raise TableError(
                f"{name}, noise of optics group {group},",
                must=f"have one row for each ring 0 to {rings[-1]}",
                got=f"{len(there)} rows",
                remedy="Give the noise of the whole box",
            )


def group_by_micrograph(particles: Particles) -> tuple[Particles, pd.DataFrame]:
    """Make each micrograph a group, as RELION does, with scale 1.

    Parameters
    ----------
    particles
        Without a column micrograph, all are of one group.

    Returns
    -------
    Particles
        With group_number, in the order in which the micrographs appear.
    pandas.DataFrame
        The groups, as `Classification` wants them.
    """
    rows = particles.rows
    names = rows["micrograph"] if "micrograph" in rows.columns else pd.Series("all", rows.index)
    codes, unique = pd.factorize(names)
    groups = pd.DataFrame(
        {
            "group_number": np.arange(1, len(unique) + 1),
            "group_name": np.asarray(unique, dtype=object).astype(str),
            "particle_count": np.bincount(codes, minlength=len(unique)),
            "scale_correction": np.ones(len(unique)),
        }
    )
    numbered = rows.assign(group_number=codes.astype(np.int64) + 1)
    return Particles(rows=numbered, optics=particles.optics, source=particles.source), groups
