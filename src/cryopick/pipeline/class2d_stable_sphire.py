"""Files of a stable classification under the names and in the forms of SPHIRE's ISAC2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.class2d.ordering import Ordering
from cryopick.io.atomic import make_folder, write_text
from cryopick.io.eman_hdf_write import write_eman_stack
from cryopick.pipeline.class2d_stable_tables import Outcome

__all__ = [
    "ALIGNMENT_FOLDER",
    "generation_folder",
    "write_generation",
    "write_lists",
    "write_ordered",
    "write_prealignment",
    "write_sphire_averages",
]

ALIGNMENT_FOLDER = "2dalignment"
_NOT_ASSIGNED = -1  # in place of the mirror


def write_sphire_averages(
    path: Path, outcome: Outcome, images: NDArray[np.float32], *, pixel_size: float
) -> list[Path]:
    """Write averages of the accepted classes with ``members``, ``n_objects`` and their scores.

    Parameters
    ----------
    path
        Of the HDF stack.
    outcome
        Of the run, with one class at least.
    images
        (C, y, x), of the accepted classes.
    pixel_size
        A/px of these.

    Returns
    -------
    list of Path
        The stack, and a file of long lists of members if need be.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    headers = [_header(outcome, number) for number in range(len(images))]
    return write_eman_stack(path, images, pixel_size=pixel_size, attributes=headers)


def write_ordered(
    path: Path, outcome: Outcome, images: NDArray[np.float32], ordering: Ordering
) -> list[Path]:
    """Write averages in order, moved onto the one before; attributes as `write_sphire_averages`.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    headers = []
    for number, similarity in zip(ordering.order.tolist(), ordering.similarity, strict=True):
        header = _header(outcome, number) | {"source_n": number}
        headers.append(header | ({"similarity": float(similarity)} if similarity > -1 else {}))
    return write_eman_stack(path, images, pixel_size=outcome.shrink.pixel_size, attributes=headers)


def _header(outcome: Outcome, number: int) -> dict[str, Any]:
    members, place = outcome.members_of(number), int(outcome.accepted[number])
    classes = outcome.state.classes
    return {
        "members": members,
        "n_objects": len(members),
        "ISAC_class_id": number,
        "main_iteration": int(classes.main[place]),
        "generation": int(classes.generation[place]),
        "pixel_error": float(classes.pixel_error[place]),
        "stable_share": float(classes.stable_share[place]),
        "reproducibility": float(classes.reproducibility[place]),
    }


def generation_folder(out: Path, main: int, generation: int) -> Path:
    """Name the folder of a generation.

    Examples
    --------
    >>> generation_folder(Path("out"), 1, 2).as_posix()
    'out/mains/main001/generation002'
    """
    return out / "mains" / f"main{main:03d}" / f"generation{generation:03d}"


def write_generation(out: Path, outcome: Outcome, *, main: int, generation: int) -> None:
    """Write the candidates of a generation, and those that were accepted; nothing without any.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    classes = outcome.state.classes
    here = np.flatnonzero((classes.main == main) & (classes.generation == generation))
    if not len(here):
        return
    folder = make_folder(generation_folder(out, main, generation))
    candidates = [
        {
            "n_objects": int(classes.n_members[place]),
            "is_accepted": int(classes.is_accepted[place]),
            "pixel_error": _finite(classes.pixel_error[place]),
            "stable_share": _finite(classes.stable_share[place]),
            "reproducibility": _finite(classes.reproducibility[place]),
        }
        for place in here
    ]
    _stack(folder / "original_class_averages.hdf", outcome, here, candidates)
    kept = here[classes.is_accepted[here]]
    if len(kept):
        numbers = np.searchsorted(outcome.accepted, kept)
        good = [_header(outcome, int(number)) for number in numbers]
        _stack(folder / "good_class_averages.hdf", outcome, kept, good)


def _stack(
    path: Path, outcome: Outcome, places: NDArray[np.int64], headers: Sequence[Mapping[str, Any]]
) -> None:
    images = outcome.state.classes.averages[places]
    write_eman_stack(path, images, pixel_size=outcome.shrink.pixel_size, attributes=headers)


def _finite(value: float) -> float:
    return float(np.nan_to_num(value))


def write_prealignment(out: Path, outcome: Outcome) -> None:
    """Write the global average, to see whether it is centred, and the shifts of all images.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    folder = make_folder(out / ALIGNMENT_FOLDER)
    state, ratio = outcome.state, outcome.shrink.ratio
    shifts = np.zeros((len(outcome.source.images), 2))
    shifts[outcome.source.rows, 0] = state.centred.shift_x / ratio
    shifts[outcome.source.rows, 1] = state.centred.shift_y / ratio
    write_text(folder / "initial2Dparams.txt", _lines((0, x, y, 0) for x, y in shifts.tolist()))
    average = state.global_average.numpy()
    if average.any():  # without prealignment there is none
        write_eman_stack(
            folder / "aqfinal.hdf", average[None], pixel_size=outcome.shrink.pixel_size
        )


def write_lists(out: Path, outcome: Outcome) -> list[str]:
    """Write the lists of images, their parameters and the shrink ratio; returns their names.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    is_member = np.zeros(len(outcome.source.images), bool)
    is_member[outcome.source.rows] = outcome.label >= 0
    texts = {
        "processed_images.txt": _numbers(np.flatnonzero(is_member)),
        "not_processed_images.txt": _numbers(np.flatnonzero(~is_member)),
        "all_parameters.txt": _lines(_sphire_poses(outcome)),
        "README_shrink_ratio.txt": _shrink_text(outcome),
    }
    for name, text in texts.items():
        write_text(out / name, text)
    return list(texts)


def _numbers(rows: NDArray[np.int64]) -> str:
    return "".join(f"{row}\n" for row in rows.tolist())


def _lines(rows: Any) -> str:
    return "".join(f"{a:.6f} {x:.6f} {y:.6f} {m:d}\n" for a, x, y, m in rows)


def _sphire_poses(outcome: Outcome) -> list[tuple[float, float, float, int]]:
    """Poses of prealigned images at working size: turned by alpha from y to x, shifted, mirrored.

    Our images are shifted before they are turned, and the prealignment has shifted them already.
    """
    state = outcome.state
    poses, psi = state.member_poses, state.member_poses.psi.astype(np.float64)
    x = poses.shift_x - state.centred.shift_x
    y = poses.shift_y - state.centred.shift_y
    columns = (
        np.rad2deg(-psi) % 360,
        np.cos(psi) * x - np.sin(psi) * y,
        np.sin(psi) * x + np.cos(psi) * y,
        poses.mirror.astype(np.int64),
    )
    rows: list[tuple[float, float, float, int]] = [
        (0.0, 0.0, 0.0, _NOT_ASSIGNED) for _ in range(len(outcome.source.images))
    ]
    for place in np.flatnonzero(outcome.label >= 0):
        alpha, sx, sy, mirror = (column[place] for column in columns)
        rows[int(outcome.source.rows[place])] = (float(alpha), float(sx), float(sy), int(mirror))
    return rows


def _shrink_text(outcome: Outcome) -> str:
    """Say the shrink ratio; SPHIRE's programs read it from line 6 and the radius from line 7."""
    return (
        "\n"
        "Images were resized before they were classified, so that the pixels of\n"
        "class_averages.hdf are larger than those of the input: divide the pixel size of\n"
        "the input by the shrink ratio. The next two lines are that ratio and the radius [px]\n"
        "--------\n"
        f"{outcome.shrink.ratio:.5f}\n"
        f"{outcome.parameters.radius:.5f}\n"
        "--------\n"
        f"Pixel size of the input {outcome.source.pixel_size:.5f} A, "
        f"of the averages {outcome.shrink.pixel_size:.5f} A.\n"
    )
