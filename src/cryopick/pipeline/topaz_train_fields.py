"""What Topaz reads to train: shrunk micrographs and lists of them and of their labels."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cryopick.execution.local import make_executor
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.atomic import make_folder, write_text
from cryopick.picking.topaz_parameters import TopazComputeParameters, TopazTrainParameters
from cryopick.picking.topaz_scale import TopazScale
from cryopick.pipeline.labelled_fields import LabelledField
from cryopick.pipeline.topaz_fields import FieldFile, WrittenField, field_name, write_field

__all__ = ["FIELDS", "PreparedLabels", "fields_folder", "prepare_labels", "write_lists"]

FIELDS = "fields"  # folder of what Topaz reads; removed at the end


class PreparedLabels(NamedTuple):
    """Labels with what was written of their micrographs, in one order."""

    fields: list[LabelledField]
    written: list[WrittenField]
    names: list[str]  # of the files, without suffix
    failed: dict[str, str]  # reasons, by micrograph


@contextlib.contextmanager
def fields_folder(folder: Path) -> Iterator[None]:
    """Make the folder of what Topaz reads, and remove it at the end.

    Raises
    ------
    OutputError
        If it cannot be made.
    """
    fields = folder / FIELDS
    shutil.rmtree(fields, ignore_errors=True)
    make_folder(fields)
    try:
        yield
    finally:
        shutil.rmtree(fields, ignore_errors=True)


def prepare_labels(
    fields: Sequence[LabelledField],
    folder: Path,
    scale: TopazScale,
    parameters: TopazTrainParameters,
    compute: TopazComputeParameters,
) -> PreparedLabels:
    """Write the labelled micrographs for Topaz; those that are broken are left out.

    Parameters
    ----------
    fields
        Micrographs with their labels.
    folder
        Of the job.
    scale
        How they are shrunk.
    parameters
        Of the training.
    compute
        Its threads are so many processes here.

    Raises
    ------
    CryopickError
        The last reason, if every micrograph is broken.
    """
    files = [
        FieldFile(
            path=field.path,
            target=folder / FIELDS / f"{field_name(number)}.mrc",
            pixel_size=field.pixel_size,
            working_pixel_size=scale.pixel_size,
            white_particles=parameters.white_particles,
        )
        for number, field in enumerate(fields, start=1)
    ]
    largest = max(f.size[0] * f.size[1] for f in fields)
    executor = make_executor(
        ComputeParameters(workers=compute.threads), n_items=len(files), bytes_per_item=40 * largest
    )
    written: list[WrittenField | None] = [None] * len(files)
    failed: dict[str, str] = {}
    for outcome in executor.map_unordered(write_field, files):
        written[outcome.index] = outcome.value
        if outcome.error is not None:
            failed[fields[outcome.index].micrograph] = str(outcome.error)
            first = outcome.error
    kept = [n for n, one in enumerate(written) if one is not None]
    if not kept:
        raise first
    return PreparedLabels(
        [fields[n] for n in kept],
        [one for one in written if one is not None],
        [files[n].target.stem for n in kept],
        failed,
    )


def write_lists(
    prepared: PreparedLabels, folder: Path, chosen: Mapping[str, Sequence[int]]
) -> None:
    """Write the lists of micrographs and labels that Topaz is given.

    Parameters
    ----------
    prepared
        Labels and files.
    folder
        Of the job, in which Topaz will run.
    chosen
        Places of the micrographs of each list, ``train`` and ``test``.

    Raises
    ------
    OutputError
        If a list cannot be written.
    """
    for kind, places in chosen.items():
        names = [prepared.names[i] for i in places]
        images = [f"{name}\t{FIELDS}/{name}.mrc" for name in names]
        targets = [line for i in places for line in _targets(prepared, i)]
        write_text(folder / FIELDS / f"{kind}_images.txt", _table("image_name\tpath", images))
        write_text(
            folder / FIELDS / f"{kind}_targets.txt",
            _table("image_name\tx_coord\ty_coord", targets),
        )


def _targets(prepared: PreparedLabels, place: int) -> list[str]:
    """Labels of a micrograph in whole pixels of its file."""
    field, written = prepared.fields[place], prepared.written[place]
    columns = np.rint(field.x / written.scale[1]).clip(0, written.shape[1] - 1).astype(int)
    rows = np.rint(field.y / written.scale[0]).clip(0, written.shape[0] - 1).astype(int)
    name = prepared.names[place]
    return [f"{name}\t{x}\t{y}" for x, y in zip(columns, rows, strict=True)]


def _table(header: str, rows: Sequence[str]) -> str:
    return "\n".join([header, *rows]) + "\n"
