"""RELION's Class2D files: one iteration of a 2D classification, read and written.

An iteration is four STAR files with one prefix, such as ``run_it025``: ``_data`` (particles),
``_model`` (classes, spectra, noise), ``_sampling`` and ``_optimiser``, which names the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
import pandas as pd

from cryopick.io.star import read_star
from cryopick.tables.classification import (
    Classification,
    ModelValues,
    OptimiserValues,
    SamplingValues,
)
from cryopick.tables.model import Particles
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
    WORKED_OUT,
    Named,
)
from cryopick.tables.relion_class2d_files import (
    COPY_AGAIN,
    ClassificationFiles,
    find_classification,
    refuse,
    require_block,
)
from cryopick.tables.relion_class2d_write import write_classification
from cryopick.tables.relion_tables import read_particles

__all__ = [
    "ClassificationFiles",
    "find_classification",
    "read_classification",
    "write_classification",
]

_Blocks = dict[str, pd.DataFrame]
_Record = TypeVar("_Record", ModelValues, SamplingValues, OptimiserValues)


def read_classification(path: Path) -> Classification:
    """Read one iteration of a 2D classification by RELION 3.1, 4, 5 or cryopick.

    Parameters
    ----------
    path
        An optimiser, model, data or sampling file, or a folder, of which the last complete
        iteration is read.

    Returns
    -------
    Classification
        Columns and values without one of our names keep RELION's label. RELION 3.1 keeps one
        noise spectrum for each micrograph: their mean over an optics group comes back, weighted
        by particles. Sampling and optimiser values are None where there are no such files.

    Raises
    ------
    FormatError
        If a file is missing or broken.
    TableError
        If a file holds no 2D classification, or lacks a table, a value or particles.
    """
    files = find_classification(Path(path))
    blocks = read_star(files.model)
    particles = _read_particles(files.data)
    model = _read_values(
        ModelValues, require_block(blocks, "model_general", files.model), files.model
    )
    groups = _table(blocks, "model_groups", GROUPS, files.model)
    _check_count(particles, groups, files)
    sampling = optimiser = None
    if files.sampling is not None:
        table = require_block(read_star(files.sampling), "sampling_general", files.sampling)
        sampling = _read_values(SamplingValues, table, files.sampling)
    if files.optimiser is not None:
        table = require_block(read_star(files.optimiser), "optimiser_general", files.optimiser)
        optimiser = _read_values(OptimiserValues, table, files.optimiser)
    classes = _read_classes(blocks, files.model)
    return Classification(
        particles=particles,
        model=model,
        classes=classes,
        spectra=_read_spectra(blocks, len(classes), files.model),
        groups=groups,
        noise=_read_noise(blocks, particles, groups, files.model),
        sampling=sampling,
        optimiser=optimiser,
        source=files.model,
    )


def _ours(table: pd.DataFrame, names: Mapping[str, str], what: str) -> pd.DataFrame:
    """Give the columns our names, and see that they are numbers."""
    for name, label in names.items():
        if name in ("image", "group_name") or label not in table.columns:
            continue
        if not pd.api.types.is_numeric_dtype(table[label]):
            numbers = pd.to_numeric(table[label], errors="coerce")
            place = int(numbers.isna().to_numpy().argmax())
            got = f"{table[label].iloc[place]!r} in row {place + 1}"
            refuse(f"{what}, column {label},", "hold numbers", got, COPY_AGAIN)
    return table.rename(columns={label: name for name, label in names.items()})


def _table(blocks: _Blocks, name: str, names: Mapping[str, str], path: Path) -> pd.DataFrame:
    return _ours(require_block(blocks, name, path), names, f"{path}, data_{name}")


def _read_particles(path: Path) -> Particles:
    particles = read_particles(path)
    rows = _ours(particles.rows, RESULTS, str(path))
    return Particles(rows=rows, optics=particles.optics, source=path)


def _check_count(particles: Particles, groups: pd.DataFrame, files: ClassificationFiles) -> None:
    expected = int(groups["particle_count"].sum())
    if len(particles) != expected:
        refuse(
            str(files.data),
            f"hold as many particles as {files.model.name} counts ({expected})",
            str(len(particles)),
            "Copy the file again, it may be cut short",
        )


def _read_classes(blocks: _Blocks, path: Path) -> pd.DataFrame:
    rows = _table(blocks, "model_classes", CLASSES, path)
    wanted = blocks["model_general"].iloc[0].get("rlnNrClasses", len(rows))
    if len(rows) != wanted:
        refuse(f"{path}, data_model_classes,", f"have {wanted} rows", str(len(rows)), COPY_AGAIN)
    for name in ACCURACIES:
        if name in rows.columns:
            rows[name] = rows[name].astype(float).replace(NOT_ESTIMATED, np.nan)
    if "image" in rows.columns:
        halves = [str(name).rpartition("@") for name in rows["image"]]
        rows["image"] = [stack for _, _, stack in halves]
        indices = [int(n) - 1 if n.isdigit() else k for k, (n, _, _) in enumerate(halves)]
        rows.insert(int(rows.columns.get_loc("image")) + 1, "image_index", indices)  # type: ignore[arg-type]
    rows.insert(0, "class_number", np.arange(1, len(rows) + 1))
    return rows


def _read_spectra(blocks: _Blocks, n_classes: int, path: Path) -> pd.DataFrame:
    spectra = []
    for number in range(1, n_classes + 1):
        rows = _table(blocks, f"model_class_{number}", SPECTRA, path)
        rows.insert(0, "class_number", number)
        spectra.append(rows)
    joined = pd.concat(spectra, ignore_index=True)
    if "resolution" in joined.columns:
        joined["resolution"] = joined["resolution"].where(joined["spectral_index"] > 0, np.inf)
    return joined


def _read_noise(
    blocks: _Blocks, particles: Particles, groups: pd.DataFrame, path: Path
) -> pd.DataFrame:
    numbers = particles.optics["optics_group"]
    if any(name.startswith("model_group_") for name in blocks):
        found = {g: _mean_noise(blocks, particles, groups, int(g), path) for g in numbers}
    else:
        found = {g: _table(blocks, f"model_optics_group_{g}", NOISE, path) for g in numbers}
    for group, rows in found.items():
        rows.insert(0, "optics_group", group)
    return pd.concat(found.values(), ignore_index=True)


def _mean_noise(
    blocks: _Blocks, particles: Particles, groups: pd.DataFrame, optics_group: int, path: Path
) -> pd.DataFrame:
    """Mean of RELION 3.1's noise over the particles of one optics group."""
    is_member = particles.rows["optics_group"] == optics_group
    counts = particles.rows.loc[is_member, "group_number"].value_counts(sort=False)
    if not len(counts):  # no particles: any noise will do
        counts = pd.Series(1, index=groups["group_number"].iloc[:1])
    tables = [_table(blocks, f"model_group_{g}", NOISE, path) for g in counts.index]
    spectra = np.stack([t["sigma2"].to_numpy(float) for t in tables])
    weights = counts.to_numpy(float)
    excess = np.average(spectra - spectra[0], axis=0, weights=weights)  # 0 where all are equal
    return tables[0].assign(sigma2=spectra[0] + excess)


def _labels_of(kind: type) -> tuple[Mapping[str, object], Mapping[str, object]]:
    tables: dict[type, Mapping[Any, Mapping[str, object]]]
    tables = {ModelValues: MODEL, SamplingValues: SAMPLING, OptimiserValues: OPTIMISER}
    return tables[kind]["3.1"], tables[kind]["5"]


def _read_values(kind: type[_Record], table: pd.DataFrame, path: Path) -> _Record:
    """Make a record of one row: named labels into its fields, the others as they are."""
    row = {str(label): column.tolist()[0] for label, column in table.items()}
    if row.get("rlnReferenceDimensionality", 2) != 2 or row.get("rlnIs3DSampling", 0):
        refuse(
            str(path),
            "be of a 2D classification",
            "references of 3 dimensions",
            "Give the folder of a Class2D job",
        )
    hints = get_type_hints(kind)
    old, new = _labels_of(kind)
    names = {label: v.name for label, v in {**old, **new}.items() if isinstance(v, Named)}
    values: dict[str, Any] = {}
    others: dict[str, object] = {}
    for label, value in row.items():
        name = names.get(label)
        if name in hints:
            values[name] = _cast(value, hints[name], f"{path}, {label},")
            if name in ACCURACIES and values[name] == NOT_ESTIMATED:
                values[name] = np.nan
        elif name not in WORKED_OUT:
            others[label] = value
    for label in names:
        if label not in row and label in old and label in new and names[label] in hints:
            refuse(str(path), f"hold a value {label}", "none, it may be cut short", COPY_AGAIN)
    return kind(**values, others=others)


def _cast(value: object, hint: object, what: str) -> object:
    """Give a value of a file the type of its field."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        refuse(what, "be a number", repr(value), "Mend it")
    if hint is int or hint is bool:
        if number != int(number):
            refuse(what, "be a whole number", str(value), "Mend it")
        return bool(number) if hint is bool else int(number)
    if hint is not float and number <= 0:  # a limit that is not set
        return None
    return number
