"""Make a picture of any file: micrograph, stack, volume or table."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cryopick.errors import ParameterError, TableError
from cryopick.io.atomic import writing
from cryopick.io.micrograph import read_micrograph
from cryopick.io.mrc import read_mrc, read_mrc_header, read_mrc_images
from cryopick.io.star import read_star
from cryopick.pipeline.class2d_references import (
    averages_of_run,
    kept_averages,
    read_averages,
)
from cryopick.pipeline.evaluate import pair_names
from cryopick.report.figures import figure_to_png
from cryopick.report.pictures import picture_of_micrograph
from cryopick.report.plates import draw_gallery, draw_histograms, draw_micrograph, draw_slices
from cryopick.report.show_parameters import ShowParameters
from cryopick.tables.paths import resolve_path
from cryopick.tables.pick_scores import UNKNOWN, PickScore
from cryopick.tables.relion import read_particles, read_picks
from cryopick.tables.relion_class2d import read_classification

__all__ = ["read_images", "show"]

_MRC = (".mrc", ".mrcs", ".map", ".rec", ".ccp4")
_MOST_HISTOGRAMS = 9


def show(
    path: Path,
    *,
    out: Path,
    parameters: ShowParameters,
    picks: Path | None = None,
    pixel_size: float | None = None,
    columns: tuple[str, ...] = (),
) -> str:
    """Draw a file into a PNG.

    Parameters
    ----------
    path
        A micrograph, a stack, a volume, a STAR file, or the folder of a 2D classification
        or of ``select classes``, which shows the classes that were kept.
    out
        The PNG file to write.
    parameters
        How to draw.
    picks
        Draw these over a micrograph: a STAR file or the folder of a picking job.
    pixel_size
        A/px of the images, instead of what their header or table says.
    columns
        Draw histograms of these columns of a table.

    Returns
    -------
    str
        One sentence on what the picture shows.

    Raises
    ------
    FormatError
        If the file is broken.
    TableError
        If a column is missing or no picks belong to the micrograph.
    ParameterError
        If an option does not fit the kind of file, or `out` is no ``.png``.
    OutputError
        If `out` cannot be written.
    """
    path, out = Path(path), Path(out)
    if out.suffix.lower() != ".png":
        raise ParameterError("out", must="end in .png", got=out.name, remedy="Change --out")
    is_table = path.suffix.lower() == ".star"
    _refuse_misfits(path, is_table=is_table, has_picks=picks is not None, columns=columns)
    _refuse_score_limits(parameters, has_scores=picks is not None)
    if is_table:
        figure, sentence = _show_table(path, columns, pixel_size, parameters)
    elif path.is_dir():
        figure, sentence = _show_classes(path, pixel_size, parameters)
    else:
        figure, sentence = _show_image(path, picks, pixel_size, parameters)
    content = figure_to_png(figure, dpi=160)
    with writing(out) as handle:
        handle.write(content)
    return sentence


def read_images(names: pd.Series, indices: pd.Series, *, table: Path | None) -> NDArray[np.float32]:
    """Read the images of some rows of a particle table.

    Parameters
    ----------
    names
        (n,) stack of each image, as the table names it.
    indices
        (n,) place in the stack, from 0.
    table
        The file of the table; relative names start near it.

    Returns
    -------
    numpy.ndarray
        (n, y, x) in the order of the rows.

    Raises
    ------
    FormatError
        If a stack is missing, broken or too short.
    TableError
        If the images differ in size.
    """
    names, indices = names.reset_index(drop=True), indices.reset_index(drop=True)
    images: list[NDArray[np.float32]] = [np.zeros((0, 0), np.float32)] * len(names)
    for stack, places in indices.groupby(names, sort=False):
        found = read_mrc_images(resolve_path(str(stack), table), places.to_numpy(np.int64))
        for place, image in zip(places.index, found, strict=True):
            images[int(place)] = image.astype(np.float32)
    if len({i.shape for i in images}) > 1:
        raise TableError(
            str(table or "table"),
            must="name images of one size",
            got=", ".join(sorted({f"{i.shape[1]} x {i.shape[0]}" for i in images})),
            remedy="Split it with: cryopick select subset",
        )
    return np.stack(images)


def _refuse_misfits(
    path: Path, *, is_table: bool, has_picks: bool, columns: tuple[str, ...]
) -> None:
    if columns and not is_table:
        raise ParameterError(
            "column", must="come with a table", got=path.name, remedy="Give a STAR file"
        )
    if has_picks and (is_table or path.is_dir()):
        raise ParameterError(
            "picks",
            must="come with a micrograph",
            got=path.name,
            remedy="Give the file of the micrograph and the table as --picks",
        )


def _refuse_score_limits(parameters: ShowParameters, *, has_scores: bool) -> None:
    if not has_scores and parameters.score_limits != (None, None):
        raise ParameterError(
            "--lowest-score and --highest-score",
            must="come with picks that have scores",
            got="none",
            remedy="Give them with --picks, or leave out the scores",
        )


def _show_image(
    path: Path, picks: Path | None, pixel_size: float | None, parameters: ShowParameters
) -> tuple[Figure, str]:
    kind = [s for s in path.suffixes if s.lower() not in (".gz", ".bz2")][-1:]
    header = read_mrc_header(path) if kind and kind[0].lower() in _MRC else None
    if header is None or header.shape[0] == 1:
        size = pixel_size or (header.pixel_size if header else None) or None
        return _show_micrograph(path, picks, size, parameters)
    if picks is not None:
        raise ParameterError(
            "picks", must="come with a micrograph", got=path.name, remedy="Leave out --picks"
        )
    count, height, width = header.shape
    is_cube = count == height == width  # many programs do not mark their volumes as such
    if (header.is_volume or is_cube) and kind[0].lower() != ".mrcs":
        sentence = f"Central slices of {path.name}, {width} x {height} x {count}."
        return draw_slices(read_mrc(path, dtype=np.float32), title=path.name), sentence
    shown = min(count, parameters.max_images)
    images = read_mrc_images(path, np.arange(shown)).astype(np.float32)
    labels = [str(i + 1) for i in range(shown)]
    return _gallery(images, labels, count, path, pixel_size or header.pixel_size, parameters)


def _show_micrograph(
    path: Path, picks: Path | None, pixel_size: float | None, parameters: ShowParameters
) -> tuple[Figure, str]:
    pixels = read_micrograph(path)
    picture = picture_of_micrograph(
        pixels,
        pixel_size=pixel_size,
        low_pass=20.0 if parameters.low_pass is None else parameters.low_pass,
        longest_side=parameters.longest_side,
    )
    rows, score = (None, UNKNOWN) if picks is None else _picks_on(path, picks)
    _refuse_score_limits(parameters, has_scores=rows is not None and "fom" in rows)
    width = pixels.shape[1] * (pixel_size or 1.0)
    count = "" if rows is None else f", {len(rows):,} picks"
    figure = draw_micrograph(
        picture,
        picks=rows,
        default_diameter=parameters.diameter or width / 30,
        score_limits=parameters.score_limits,
        score_name=score.meaning,
        title=f"{path.name}{count}",
    )
    return figure, f"{path.name}, {pixels.shape[1]} x {pixels.shape[0]}{count}."


def _picks_on(micrograph: Path, picks: Path) -> tuple[pd.DataFrame, PickScore]:
    """Take the picks of one micrograph; a file of one micrograph needs no matching name.

    Their scores come with what they mean.
    """
    table = read_picks(picks)
    listed = table.attributes.get("micrographs")
    names = [
        str(n) for n in (listed if isinstance(listed, list) else table.rows["micrograph"].unique())
    ]
    exact = [n for n in names if micrograph.as_posix().endswith(n)]
    same_stem = list(pair_names(names, [micrograph.name]))
    found = exact or same_stem or (names if len(names) == 1 else [])
    if not found:
        raise TableError(
            str(picks),
            must=f"hold picks of {micrograph.name}",
            got=", ".join(PurePosixPath(n).name for n in names[:3]) or "no micrograph",
            remedy="Give the picks of this micrograph",
        )
    score = table.attributes.get("score", UNKNOWN)
    assert isinstance(score, PickScore)
    return table.rows[table.rows["micrograph"] == found[0]], score


def _show_table(
    path: Path, columns: tuple[str, ...], pixel_size: float | None, parameters: ShowParameters
) -> tuple[Figure, str]:
    blocks = {name: b for name, b in read_star(path).items() if len(b)}
    has_images = any("rlnImageName" in b for b in blocks.values())
    if has_images and not columns:
        particles = read_particles(path)
        shown = particles.rows.head(parameters.max_images)
        images = read_images(shown["image"], shown["image_index"], table=path)
        labels = [str(i + 1) for i in range(len(shown))]
        size = pixel_size or float(particles.optics["pixel_size"].iloc[0])
        return _gallery(images, labels, len(particles), path, size, parameters)
    tables = [b for name, b in blocks.items() if name != "optics"]
    table = max(tables, key=len, default=pd.DataFrame())
    values = _columns(path, table, columns)
    return draw_histograms(values, title=f"{path.name}, {len(table):,} rows"), (
        f"Histograms of {', '.join(values)} over {len(table):,} rows."
    )


def _show_classes(
    folder: Path, pixel_size: float | None, parameters: ShowParameters
) -> tuple[Figure, str]:
    """Draw the averages of the last iteration of a 2D classification, the largest class first."""
    kept = kept_averages(folder)
    if kept is not None:
        return _show_kept(folder, kept, pixel_size, parameters)
    if not any(folder.glob("*_model.star")):
        found = sorted(p.name for p in folder.iterdir() if p.suffix in (".star", *_MRC))
        raise TableError(
            str(folder),
            must="be a file, or the folder of a 2D classification",
            got="a folder without *_model.star",
            remedy=f"Give one of its files, such as {folder / found[0]}"
            if found
            else "Give a micrograph, stack, volume or STAR file",
        )
    run = read_classification(folder)
    total = len(run.classes)
    counts = np.bincount(run.particles.rows["class_number"], minlength=total + 1)[1 : total + 1]
    shown = np.argsort(-counts, kind="stable")[: parameters.max_images]
    figure = draw_gallery(
        averages_of_run(run)[shown],
        labels=[f"{k + 1}: {counts[k]:,}" for k in shown],
        columns=parameters.columns,
        pixel_size=pixel_size or run.model.pixel_size,
        low_pass=parameters.low_pass or 0.0,
        title=f"{folder.resolve().name}, {len(shown):,} of {total:,} classes (number: particles)",
    )
    return figure, (
        f"{len(shown):,} of {total:,} classes of {folder}, the largest first, with number and "
        "particles."
    )


def _show_kept(
    folder: Path, table: Path, pixel_size: float | None, parameters: ShowParameters
) -> tuple[Figure, str]:
    """Draw the averages that a selection has kept, in the order of its table."""
    images, found = read_averages(table)
    total, shown = len(images), min(len(images), parameters.max_images)
    (rows,) = (t for t in read_star(table).values() if len(t) == total)
    numbers = rows.get("rlnClassNumber", pd.Series(range(1, total + 1))).astype(int)
    figure = draw_gallery(
        images[:shown],
        labels=[str(n) for n in numbers[:shown]],
        columns=parameters.columns,
        pixel_size=pixel_size or found,
        low_pass=parameters.low_pass or 0.0,
        title=f"{folder.resolve().name}, {shown:,} of {total:,} classes that were kept",
    )
    return figure, f"{shown:,} of {total:,} classes that were kept in {folder}, with number."


def _columns(
    path: Path, table: pd.DataFrame, wanted: tuple[str, ...]
) -> dict[str, NDArray[np.float64]]:
    numeric = [str(c) for c in table.columns if pd.api.types.is_numeric_dtype(table[c])]
    short = {c.removeprefix("rln"): c for c in numeric}
    names = [short.get(w, w) for w in wanted] or [c for c in numeric if table[c].nunique() > 1]
    missing = [n for n in names if n not in numeric]
    if missing or not names:
        raise TableError(
            str(path),
            must=f"have a column of numbers {missing[0]}" if missing else "have numbers that vary",
            got=", ".join(numeric) or "no column of numbers",
            remedy="Name another --column",
        )
    kept = names if wanted else names[:_MOST_HISTOGRAMS]
    return {n: table[n].to_numpy(np.float64) for n in kept}


def _gallery(
    images: NDArray[np.float32],
    labels: list[str],
    count: int,
    path: Path,
    pixel_size: float,
    parameters: ShowParameters,
) -> tuple[Figure, str]:
    title = f"{path.name}, {len(images):,} of {count:,} images"
    figure = draw_gallery(
        images,
        labels=labels,
        columns=parameters.columns,
        pixel_size=pixel_size,
        low_pass=parameters.low_pass or 0.0,
        title=title,
    )
    return figure, f"{len(images):,} of {count:,} images of {path.name}."
