"""Write one iteration of a 2D classification as the files of RELION's Class2D."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryopick.io.star import write_star
from cryopick.tables.classification import Classification
from cryopick.tables.model import COLUMNS, Particles
from cryopick.tables.relion_class2d_columns import (
    ACCURACIES,
    CLASSES,
    GROUPS,
    MODEL,
    NOISE,
    NOT_ESTIMATED,
    OPTIMISER,
    RESULTS,
    SAMPLING,
    SPECTRA,
    Named,
    RelionVersion,
)
from cryopick.tables.relion_names import PARTICLE_OPTICS, PARTICLE_ROWS, to_relion
from cryopick.tables.relion_tables import join_image_names

__all__ = ["write_classification"]

_COMMENTS = {"3.1": "version 30001", "5": "version 50001"}
_INDEX_DIGITS = {"3.1": 6, "5": 8}  # of the class averages


def write_classification(
    prefix: Path | str,
    classification: Classification,
    *,
    relion_version: RelionVersion = "5",
    command: str = "",
) -> None:
    """Write ``<prefix>_data.star``, ``_sampling.star``, ``_model.star``, ``_optimiser.star``.

    Each file is written whole or not at all, and the optimiser last, since it names the others:
    where it lies, all lie. The class averages are not written; name their stack in the column
    `image` of the classes, or else it is ``<prefix>_classes.mrcs``. Names are written as they
    are given; RELION expects them relative to the folder of the project.

    Parameters
    ----------
    prefix
        For example ``Class2D/job003/run_it025``.
    classification
        Rings that a spectrum lacks are written as 0; accuracies that are NaN as 999. Without
        sampling or optimiser values, that file is left out.
    relion_version
        "5" writes the tables, labels and order of RELION 5.0.1; RELION 3.1.3 starts from such a
        table of particles, but does not continue such a run. "3.1" writes those of RELION
        3.1.3, whose ``relion_refine --continue`` goes on from them; the noise of an optics
        group is repeated for each of its micrographs, as that version keeps it.
    command
        The command line, for the head of the optimiser file.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    prefix = Path(prefix)
    comment = _COMMENTS[relion_version]
    files = {kind: f"{prefix.as_posix()}_{kind}.star" for kind in ("data", "sampling", "model")}
    write_star(Path(files["data"]), _data_blocks(classification.particles), comment=comment)
    if classification.sampling is not None:
        table = _values_table(SAMPLING[relion_version], _sampling_values(classification))
        general = "sampling_general"
        write_star(Path(files["sampling"]), {general: table}, comment=comment, as_pairs={general})
    write_star(
        Path(files["model"]),
        _model_blocks(classification, prefix, relion_version),
        comment=comment,
        as_pairs={"model_general"},
    )
    if classification.optimiser is not None:
        values = _optimiser_values(classification) | {f"{k}_file": v for k, v in files.items()}
        values["root"] = re.sub(r"_it\d+$", "", prefix.as_posix())
        general = "optimiser_general"
        write_star(
            Path(f"{prefix.as_posix()}_optimiser.star"),
            {general: _values_table(OPTIMISER[relion_version], values)},
            comment=f"cryopick optimiser\n# {command}\n\n# {comment}" if command else comment,
            as_pairs={general},
        )


def _data_blocks(particles: Particles) -> dict[str, pd.DataFrame]:
    rows = particles.rows
    names = join_image_names(rows["image"], rows["image_index"])
    rows = rows.assign(image=names).drop(columns="image_index")
    for name, value in (("rot", 0.0), ("tilt", 0.0), ("norm_correction", 1.0)):
        if name not in rows.columns:
            rows[name] = value
    ours = PARTICLE_ROWS | RESULTS
    labels = {
        n: ours.get(n, n)
        for n in _order([str(n) for n in rows.columns])
        if n in ours or n not in COLUMNS
    }
    optics = particles.optics
    if "optics_group_name" not in optics.columns:
        optics = optics.assign(
            optics_group_name=[f"opticsGroup{g}" for g in optics["optics_group"]]
        )
    # the order of RELION for a table that it has read: that of the file
    groups = {n: PARTICLE_OPTICS[n] for n in optics.columns if n in PARTICLE_OPTICS}
    return {"optics": to_relion(optics, groups), "particles": to_relion(rows, labels)}


def _order(names: list[str]) -> list[str]:
    """RELION appends its results, except where the table had them before the image names."""
    before = names[: names.index("image")]
    last = [n for n in RESULTS if n in names and n not in before]
    return [n for n in names if n not in last] + last


def _model_blocks(
    classification: Classification, prefix: Path, version: RelionVersion
) -> dict[str, pd.DataFrame]:
    values = _values(classification.model) | {
        "n_classes": classification.n_classes,
        "n_groups": len(classification.groups),
        "n_optics_groups": len(classification.particles.optics),
    }
    blocks = {
        "model_general": _values_table(MODEL[version], values),
        "model_classes": _classes_table(classification, prefix, version),
    }
    spectra = dict(list(classification.spectra.groupby("class_number")))
    none = classification.spectra.iloc[:0]
    for number in range(1, classification.n_classes + 1):
        spectrum = spectra.get(number, none).drop(columns="class_number")
        blocks[f"model_class_{number}"] = _spectrum_table(spectrum, classification)
    blocks["model_groups"] = to_relion(classification.groups, GROUPS)
    return blocks | _noise_blocks(classification, version)


def _classes_table(
    classification: Classification, prefix: Path, version: RelionVersion
) -> pd.DataFrame:
    given = classification.classes.drop(columns=["class_number"], errors="ignore")
    count = len(given)
    defaults: dict[str, Any] = {
        "image": f"{prefix.as_posix()}_classes.mrcs",
        "image_index": np.arange(count),
        "accuracy_rotations": np.nan,
        "accuracy_translations": np.nan,
        "estimated_resolution": np.inf,
        "completeness": 0.0,
        "prior_offset_x": 0.0,
        "prior_offset_y": 0.0,
    }
    rows = given.copy()
    for name, value in defaults.items():
        if name not in rows.columns:
            rows[name] = value
    for name in ACCURACIES:
        rows[name] = rows[name].fillna(NOT_ESTIMATED)
    digits = _INDEX_DIGITS[version]
    rows["image"] = [
        f"{index + 1:0{digits}d}@{stack}"
        for stack, index in zip(rows["image"], rows["image_index"], strict=True)
    ]
    return to_relion(rows.drop(columns="image_index"), CLASSES)


def _spectrum_table(spectrum: pd.DataFrame, classification: Classification) -> pd.DataFrame:
    """All rings of one class; RELION writes 0 beyond the resolution in use."""
    given = spectrum.set_index("spectral_index")
    defaults = {"fsc": 0.0, "completeness": 1.0, "orientability": 0.0}
    given = given.assign(**{n: v for n, v in defaults.items() if n not in given.columns})
    rings = pd.RangeIndex(classification.model.box_size // 2 + 1, name="spectral_index")
    return to_relion(_with_scale(given.reindex(rings, fill_value=0.0), classification), SPECTRA)


def _noise_blocks(
    classification: Classification, version: RelionVersion
) -> dict[str, pd.DataFrame]:
    noise = {
        group: to_relion(
            _with_scale(
                rows.drop(columns="optics_group").set_index("spectral_index"), classification
            ).drop(columns="resolution"),
            NOISE,
        )
        for group, rows in classification.noise.groupby("optics_group")
    }
    if version == "5":
        return {f"model_optics_group_{group!s}": rows for group, rows in noise.items()}
    optics = classification.particles.rows.groupby("group_number")["optics_group"].first()
    fallback = next(iter(noise))  # of a group that has lost all its particles
    return {
        f"model_group_{group}": noise[optics.get(group, fallback)]
        for group in classification.groups["group_number"]
    }


def _with_scale(rings: pd.DataFrame, classification: Classification) -> pd.DataFrame:
    """Add frequency and resolution of each ring to a table indexed by ring."""
    model = classification.model
    frequency = rings.index.to_numpy(float) / (model.box_size * model.pixel_size)
    with np.errstate(divide="ignore"):
        resolution = np.where(frequency > 0, 1 / frequency, NOT_ESTIMATED)
    return rings.assign(frequency=frequency, resolution=resolution).reset_index()


def _sampling_values(classification: Classification) -> dict[str, Any]:
    values = _values(classification.sampling)
    steps = ("psi_step", "offset_range", "offset_step")
    return values | {f"original_{name}": values[name] for name in steps}


def _optimiser_values(classification: Classification) -> dict[str, Any]:
    values = _values(classification.optimiser)
    for name in ACCURACIES:
        values[name] = NOT_ESTIMATED if pd.isna(values[name]) else values[name]
    if values["highres_limit"] is None:
        values["highres_limit"] = -1.0
    values["tau2_fudge"] = classification.model.tau2_fudge
    values["current_frequency"] = 1 / classification.model.current_resolution
    return values


def _values(record: object) -> dict[str, Any]:
    """Fields of a dataclass by name, without copying; what it holds under labels stays apart."""
    assert dataclasses.is_dataclass(record)
    return {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}


def _values_table(labels: Mapping[str, object], values: Mapping[str, object]) -> pd.DataFrame:
    """One row in the order of the labels; labels that no version of RELION knows follow."""
    others = values["others"]
    assert isinstance(others, Mapping)
    row = {}
    for label, default in labels.items():
        value = values[default.name] if isinstance(default, Named) else default
        row[label] = others.get(label, value)
    known = {
        label for tables in (MODEL, SAMPLING, OPTIMISER) for t in tables.values() for label in t
    }
    row |= {label: value for label, value in others.items() if label not in known}
    return pd.DataFrame({label: [value] for label, value in row.items()})
