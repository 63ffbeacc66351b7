"""What a stable classification has found as tables: members, classes, RELION's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.class2d.averages import ClassAverages
from cryopick.class2d.stable_images import Shrink
from cryopick.class2d.stable_parameters import StableParameters
from cryopick.class2d.stable_state import StableState
from cryopick.pipeline.class2d_averages import RELION_T
from cryopick.pipeline.class2d_source import ParticleSource
from cryopick.pipeline.class2d_stable_averages import StableMembers, image_spectra
from cryopick.tables.classification import Classification, ModelValues
from cryopick.tables.model import Particles
from cryopick.tables.paths import rename_for

__all__ = ["MASK_SHARE", "Outcome", "class_rows", "particle_rows", "to_stable_classification"]

MASK_SHARE = 1.2  # diameter of the mask over that of the particle
_COLUMNS = {
    "cryopickMainIteration": "main",
    "cryopickGeneration": "generation",
    "cryopickPixelError": "pixel_error",
    "cryopickStableShare": "stable_share",
    "cryopickReproducibility": "reproducibility",
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A state of a run and what it is of; accepted classes are counted from 1 as they came."""

    source: ParticleSource
    parameters: StableParameters
    shrink: Shrink
    state: StableState

    @property
    def accepted(self) -> NDArray[np.int64]:
        """Places of the accepted classes among all candidates."""
        places: NDArray[np.int64] = np.flatnonzero(self.state.classes.is_accepted)
        return places

    @property
    def label(self) -> NDArray[np.int64]:
        """(n,) accepted class of each image of the source, from 0; -1: none."""
        place = np.full(len(self.state.classes) + 1, -1, np.int64)
        place[self.accepted] = np.arange(len(self.accepted))
        label: NDArray[np.int64] = place[self.state.class_index]
        return label

    @property
    def averages(self) -> NDArray[np.float32]:
        """(C, size, size) of the accepted classes, at working size."""
        return self.state.classes.averages[self.accepted]

    @property
    def mask_diameter(self) -> float:
        """A, of the full averages."""
        side = self.source.box_size * self.source.pixel_size
        return min(MASK_SHARE * 2 * self.parameters.radius * self.source.pixel_size, side)

    def members_of(self, number: int) -> NDArray[np.int64]:
        """Rows of the table of the members of an accepted class, counted from 0."""
        rows: NDArray[np.int64] = self.source.rows[self.label == number]
        return rows

    def members(self) -> StableMembers:
        """Poses at the pixels of the input."""
        poses, ratio = self.state.member_poses, self.shrink.ratio
        return StableMembers(
            label=self.label,
            psi=np.rad2deg(np.angle(np.exp(1j * poses.psi))).astype(np.float32),
            shift_x=(poses.shift_x / ratio).astype(np.float32),
            shift_y=(poses.shift_y / ratio).astype(np.float32),
            mirror=poses.mirror,
            n_classes=len(self.accepted),
        )


def class_rows(outcome: Outcome, image: str) -> pd.DataFrame:
    """One row for each accepted class, with RELION's names and ours; `image` is their stack."""
    classes, places = outcome.state.classes, outcome.accepted
    counts = np.bincount(outcome.label[outcome.label >= 0], minlength=len(places))
    return pd.DataFrame(
        {
            "rlnReferenceImage": [f"{n:06d}@{image}" for n in range(1, len(places) + 1)],
            "rlnClassNumber": np.arange(1, len(places) + 1),
            "cryopickParticleCount": counts,
            **{
                label: np.round(getattr(classes, name)[places].astype(np.float64), 5)
                if getattr(classes, name).dtype.kind == "f"
                else getattr(classes, name)[places]
                for label, name in _COLUMNS.items()
            },
        }
    )


def particle_rows(outcome: Outcome, target: Path) -> pd.DataFrame:
    """All rows of the table, with class, pose, and what the tests have found of each image.

    Parameters
    ----------
    outcome
        Of the run.
    target
        The table that is to be written, from which stacks must be found.
    """
    source, state = outcome.source, outcome.state
    particles, members = source.images.particles, outcome.members()
    is_member = members.label >= 0
    rows = particles.rows.copy()
    names = {str(n): rename_for(str(n), source=particles.source, target=target)
             for n in rows["image"].unique()}  # fmt: skip
    rows["image"] = rows["image"].map(names)
    rows = rows.assign(group_number=source.images.micrograph_groups().numbers, rot=0.0, tilt=0.0)
    pixel_size = source.pixel_size
    found: dict[str, NDArray[Any]] = {
        "class_number": members.label + 1,
        "psi": np.where(is_member, members.psi, 0),
        "shift_x": np.where(is_member, members.shift_x * pixel_size, 0),
        "shift_y": np.where(is_member, members.shift_y * pixel_size, 0),
        "cryopickIsMirrored": (is_member & members.mirror).astype(np.int64),
        "cryopickPixelError": np.where(np.isfinite(state.pixel_error), state.pixel_error, np.nan),
        "cryopickSignificance": state.significance,
    }
    for name, values in found.items():
        is_whole = values.dtype.kind == "i"
        empty = np.nan if name == "cryopickPixelError" else 0
        column = np.full(len(rows), 0 if is_whole else empty, np.int64 if is_whole else np.float64)
        column[source.rows] = values if is_whole else np.round(values.astype(float), 6)
        rows[name] = column
    return rows


def to_stable_classification(
    outcome: Outcome, averages: ClassAverages, rows: pd.DataFrame, stack: str
) -> Classification:
    """Put together what RELION's data and model file hold.

    Parameters
    ----------
    outcome
        Of the run, with one class at least.
    averages
        At the full box.
    rows
        From `particle_rows`.
    stack
        Name of the stack of the averages.
    """
    source = outcome.source
    n, size = len(outcome.accepted), source.box_size
    optics = source.images.particles.optics.set_index("optics_group", drop=False)
    numbers = [g.number for g in source.images.optics.groups]
    rings = np.arange(size // 2 + 1)
    noise = image_spectra(source, mask_diameter=outcome.mask_diameter)
    spectra = {"ssnr": averages.ssnr, "fsc": averages.frc, "completeness": averages.completeness,
               "sigma2": averages.sigma2, "tau2": averages.tau2}  # fmt: skip
    resolution = averages.estimated_resolution.numpy()
    return Classification(
        particles=Particles(rows=rows, optics=optics.loc[numbers].reset_index(drop=True)),
        model=ModelValues(
            box_size=size,
            pixel_size=source.pixel_size,
            current_resolution=float(resolution[np.isfinite(resolution)].min(initial=1e3)),
            current_size=size,
            tau2_fudge=RELION_T,
        ),
        classes=_classes(averages, stack),
        spectra=pd.DataFrame(
            {
                "class_number": np.repeat(np.arange(1, n + 1), len(rings)),
                "spectral_index": np.tile(rings, n),
                **{name: values.double().numpy().ravel() for name, values in spectra.items()},
            }
        ),
        groups=_groups(source),
        noise=pd.DataFrame(
            {
                "optics_group": np.repeat(numbers, len(rings)),
                "spectral_index": np.tile(rings, len(numbers)),
                "sigma2": noise.ravel(),
            }
        ),
    )


def _classes(averages: ClassAverages, stack: str) -> pd.DataFrame:
    counts = averages.hard_counts.numpy()
    n = len(counts)
    return pd.DataFrame(
        {
            "class_number": np.arange(1, n + 1),
            "image": stack,
            "image_index": np.arange(n),
            "distribution": counts / max(counts.sum(), 1),
            "accuracy_rotations": np.nan,
            "accuracy_translations": np.nan,
            "estimated_resolution": averages.estimated_resolution.numpy(),
            "completeness": averages.completeness.numpy().mean(axis=1),
            "particle_count": counts,
        }
    )


def _groups(source: ParticleSource) -> pd.DataFrame:
    groups = source.images.micrograph_groups()
    return pd.DataFrame(
        {
            "group_number": np.arange(1, len(groups.names) + 1),
            "group_name": groups.names,
            "particle_count": np.bincount(groups.numbers - 1, minlength=len(groups.names)),
            "scale_correction": 1.0,
        }
    )
