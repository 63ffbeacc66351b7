"""A state and its final averages as the tables of a classification (`tables.classification`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cryopick.class2d.accuracy import UNKNOWN, PoseAccuracy, estimate_accuracy
from cryopick.class2d.averages import soft_circle
from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.class2d.em_state import EmState, Poses
from cryopick.pipeline.class2d_averages import MASK_EDGE, RELION_T, FinalAverages
from cryopick.pipeline.class2d_source import ParticleSource
from cryopick.tables.classification import (
    Classification,
    ModelValues,
    OptimiserValues,
    SamplingValues,
)
from cryopick.tables.model import Particles
from cryopick.tables.paths import rename_for

__all__ = ["noise_spectra", "to_classification"]

_PSI_STEP = 6.0  # deg, told to RELION where the rotation search follows the resolution


def to_classification(
    source: ParticleSource,
    state: EmState,
    final: FinalAverages,
    parameters: ClassificationParameters,
    *,
    mask_diameter: float,
    noise_unit: float,
    prefix: Path,
) -> Classification:
    """Put together the tables of one iteration.

    Parameters
    ----------
    source
        The images.
    state
        After the iteration.
    final
        Averages of that state.
    parameters
        Of the run.
    mask_diameter
        A.
    noise_unit
        See `noise_spectra`.
    prefix
        Of the files that will be written.
    """
    size, pixel_size = source.box_size, source.pixel_size
    noise = noise_spectra(source, state, final, mask_diameter=mask_diameter, noise_unit=noise_unit)
    counts = np.bincount(source.optics_numbers, minlength=len(noise)).astype(float)
    sigma2 = torch.from_numpy(np.average(noise, axis=0, weights=counts))
    shares = _padded(state.shares.double().cpu().numpy(), len(final.averages.images))
    accuracy = estimate_accuracy(
        final.averages.images.cpu(),
        ctf_power=final.ctf_power.cpu(),
        sigma2=sigma2,
        shares=torch.from_numpy(shares),
        pixel_size=pixel_size,
        resolution=state.resolution,
    )
    classes = _class_table(state.poses, shares, final, accuracy, prefix)
    optics = source.images.particles.optics.set_index("optics_group", drop=False)
    numbers = [g.number for g in source.images.optics.groups]
    particles = Particles(
        rows=_particle_rows(source, state.poses, parameters, prefix), optics=optics.loc[numbers]
    )
    return Classification(
        particles=particles,
        model=_model_values(source, state, parameters),
        classes=classes,
        spectra=_spectra(final),
        groups=_groups(source, state),
        noise=pd.DataFrame(
            {
                "optics_group": np.repeat(numbers, size // 2 + 1),
                "spectral_index": np.tile(np.arange(size // 2 + 1), len(numbers)),
                "sigma2": noise.ravel(),
            }
        ),
        sampling=_sampling_values(parameters),
        optimiser=_optimiser_values(state, parameters, source, accuracy, mask_diameter),
    )


def noise_spectra(
    source: ParticleSource,
    state: EmState,
    final: FinalAverages,
    *,
    mask_diameter: float,
    noise_unit: float,
) -> NDArray[np.float64]:
    """Noise of masked images on the rings of the whole box.

    Within the limit of the alignment it is what the run has found, brought to the scale of
    `tables.classification`; beyond, where no signal was sought, it is the power of the images.

    Parameters
    ----------
    source, state, final
        Images, what was found, and the power of the images.
    mask_diameter
        A.
    noise_unit
        Variance of a pixel of white noise for which the noise of `state` is 1.

    Returns
    -------
    numpy.ndarray
        (optics groups, box_size // 2 + 1) float64.
    """
    size = source.box_size
    radius = mask_diameter / (2 * source.pixel_size)
    inside = float(soft_circle(size, radius=radius, edge=MASK_EDGE).square().mean())
    rings = np.arange(size // 2 + 1) / (size * source.pixel_size)
    known = state.ring_frequencies.cpu().numpy()
    result = final.image_power.copy()
    used = (rings <= min(known[-1], 1 / state.resolution)) & (rings >= known[0])
    for optics, found in enumerate(state.noise.cpu().double().numpy()):
        variance = np.interp(rings, known, found) * noise_unit
        result[optics, used] = (variance * inside / (2 * size**2))[used]
    return result


def _padded(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    return np.concatenate([values, np.zeros(count - len(values))])


def _class_table(
    poses: Poses, shares: NDArray[np.float64], final: FinalAverages, accuracy: PoseAccuracy,
    prefix: Path,
) -> pd.DataFrame:  # fmt: skip
    count = len(shares)
    member = poses.class_index[poses.is_member]
    hard = np.bincount(member, minlength=count)
    entropy = np.bincount(member, poses.entropy[poses.is_member].astype(float), minlength=count)
    averages = final.averages
    kept = averages.completeness.cpu().numpy()
    rotation, translation = (a.cpu().double().numpy().copy() for a in accuracy)
    for values in (rotation, translation):
        values[(values == UNKNOWN) | (hard == 0)] = np.nan
    return pd.DataFrame(
        {
            "class_number": np.arange(1, count + 1),
            "image": f"{prefix.as_posix()}_classes.mrcs",
            "image_index": np.arange(count),
            "distribution": shares,
            "accuracy_rotations": rotation,
            "accuracy_translations": translation,
            "estimated_resolution": averages.estimated_resolution.cpu().numpy(),
            "completeness": kept.mean(axis=1),
            "particle_count": hard,
            "soft_count": shares * float((1 - poses.junk_probability[poses.seen]).sum()),
            "entropy": entropy / np.maximum(hard, 1),
        }
    )


def _spectra(final: FinalAverages) -> pd.DataFrame:
    averages = final.averages
    count, rings = averages.ssnr.shape
    columns = {"ssnr": averages.ssnr, "fsc": averages.frc, "completeness": averages.completeness,
               "sigma2": averages.sigma2, "tau2": averages.tau2}  # fmt: skip
    return pd.DataFrame(
        {
            "class_number": np.repeat(np.arange(1, count + 1), rings),
            "spectral_index": np.tile(np.arange(rings), count),
            **{name: values.cpu().double().numpy().ravel() for name, values in columns.items()},
        }
    )


def _groups(source: ParticleSource, state: EmState) -> pd.DataFrame:
    names = source.group_names
    scale = state.group_scale.cpu().double().numpy()
    numbers = source.images.micrograph_groups().numbers
    return pd.DataFrame(
        {
            "group_number": np.arange(1, len(names) + 1),
            "group_name": names,
            "particle_count": np.bincount(numbers - 1, minlength=len(names)),
            "scale_correction": np.concatenate([scale, np.ones(len(names) - len(scale))]),
        }
    )


def _particle_rows(
    source: ParticleSource, poses: Poses, parameters: ClassificationParameters, prefix: Path
) -> pd.DataFrame:
    """Rows of the table with the results; images of no use keep their place, with class 0."""
    particles = source.images.particles
    rows = particles.rows.copy()
    target = prefix.with_name("particles.star")
    names = {str(n): rename_for(str(n), source=particles.source, target=target)
             for n in rows["image"].unique()}  # fmt: skip
    rows["image"] = rows["image"].map(names)
    found: dict[str, NDArray[Any]] = {
        "psi": poses.psi,
        "shift_x": poses.shift_x,
        "shift_y": poses.shift_y,
        "class_number": np.where(poses.is_member, poses.class_index + 1, 0),
        "norm_correction": poses.norm,
        "log_likelihood": poses.log_likelihood,
        "max_probability": poses.max_probability,
        "n_significant": poses.n_significant,
        "margin": poses.margin,
    }
    if parameters.junk:
        found["junk_probability"] = poses.junk_probability
    unknown = {"norm_correction": 1.0, "junk_probability": 1.0}
    rows = rows.assign(group_number=source.images.micrograph_groups().numbers, rot=0.0, tilt=0.0)
    for name, values in found.items():
        is_whole = values.dtype.kind == "i"
        column = np.full(len(rows), unknown.get(name, 0), np.int64 if is_whole else np.float64)
        column[source.rows] = values if is_whole else np.round(values.astype(float), 6)
        rows[name] = column
    return rows


def _model_values(
    source: ParticleSource, state: EmState, parameters: ClassificationParameters
) -> ModelValues:
    poses = state.poses
    box = source.box_size * source.pixel_size
    return ModelValues(
        box_size=source.box_size,
        pixel_size=source.pixel_size,
        current_resolution=state.resolution,
        current_size=min(source.box_size, 2 * math.ceil(box / state.resolution)),
        tau2_fudge=RELION_T * parameters.regularisation,
        sigma_offset=state.sigma_offset,
        average_norm_correction=float(poses.norm[poses.seen].mean()),
        log_likelihood=float(poses.log_likelihood[poses.seen].astype(float).sum()),
        average_max_probability=float(poses.max_probability[poses.seen].mean()),
    )


def _sampling_values(parameters: ClassificationParameters) -> SamplingValues:
    return SamplingValues(
        psi_step=parameters.psi_step or _PSI_STEP,
        offset_range=parameters.offset_range,
        offset_step=parameters.offset_step,
        perturbation_factor=0.0,
    )


def _optimiser_values(
    state: EmState,
    parameters: ClassificationParameters,
    source: ParticleSource,
    accuracy: PoseAccuracy,
    mask_diameter: float,
) -> OptimiserValues:
    best: Mapping[str, float] = {
        name: float(values.min()) if bool((values < UNKNOWN).any()) else math.nan
        for name, values in accuracy._asdict().items()
    }
    classes, rotation, offset = state.changes
    return OptimiserValues(
        iteration=state.iteration,
        n_iterations=parameters.iterations,
        random_seed=parameters.seed,
        particle_diameter=mask_diameter,
        mask_edge_px=round(MASK_EDGE),
        oversampling=0,
        is_zero_masked=parameters.fill == "zero",
        highres_limit=parameters.resolution_limit,
        corrects_norm=parameters.norm_correction,
        corrects_scale=parameters.scale_correction,
        corrects_ctf=parameters.ctf != "none",
        centers_classes=parameters.center_classes,
        ignores_ctf_until_first_peak=parameters.ctf == "first-peak",
        is_phase_flipped=bool(source.is_phase_flipped.any()),
        skips_alignment=not parameters.align,
        has_converged=state.is_finished and state.iteration < parameters.iterations,
        accuracy_rotations=best["rotation"],
        accuracy_translations=best["translation"],
        changes_classes=classes,
        changes_orientations=rotation,
        changes_offsets=offset,
    )
