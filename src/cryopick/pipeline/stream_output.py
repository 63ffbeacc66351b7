"""What a round of a stream leaves beside RELION's files: its state, its classes, exports."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.class2d.average_sums import AverageSums
from cryopick.class2d.stream_state import StreamState
from cryopick.errors import FormatError
from cryopick.io.atomic import writing
from cryopick.io.star import read_star, write_star
from cryopick.io.xmd import write_xmd
from cryopick.pipeline.stream_rounds import Round
from cryopick.pipeline.stream_source import ImageScreen, StreamSource
from cryopick.tables.classification import Classification
from cryopick.tables.model import Particles
from cryopick.tables.xmipp import write_xmd_particles

__all__ = [
    "CLASSES",
    "STATE",
    "SUMS",
    "class_table",
    "read_class_table",
    "read_state",
    "read_sums",
    "round_sentence",
    "round_values",
    "write_class_table",
    "write_state",
    "write_xmd_tables",
]

STATE, SUMS, CLASSES = "state.npz", "sums.npz", "stream_classes.star"
_BLOCK = "stream_classes"
_LABELS = {
    "class_number": "rlnClassNumber",
    "particle_count": "cryopickParticleCount",
    "new_particles": "cryopickNewParticles",
    "count_before": "cryopickCountBefore",
    "resolution": "rlnEstimatedResolution",
    "drift": "cryopickDrift",
    "merged_into": "cryopickMergedInto",
    "split_from": "cryopickSplitFrom",
}
_SUMS = ("images", "ctf_power", "soft_counts", "hard_counts")


def write_state(folder: Path, state: StreamState, screen: ImageScreen) -> None:
    """Write what the next round begins from.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    arrays: dict[str, NDArray[Any]] = {f"stream.{n}": a for n, a in state.to_arrays().items()}
    arrays |= {"is_useful": screen.is_useful, "typical": np.asarray(screen.typical)}
    with writing(folder / STATE) as handle:
        np.savez(handle, **arrays)  # type: ignore[arg-type]


def read_state(folder: Path) -> tuple[StreamState, ImageScreen]:
    """Read what `write_state` wrote.

    Raises
    ------
    FormatError
        If the file is missing, broken, or of another version of cryopick.
    """
    path = folder / STATE
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
            parts = {
                n.removeprefix("stream."): np.array(arrays[n])
                for n in arrays.files
                if n.startswith("stream.")
            }
            screen = ImageScreen(np.array(arrays["is_useful"]), float(arrays["typical"]))
        return StreamState.from_arrays(parts), screen
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise FormatError(
            str(path),
            must="be the state of a stream of this version of cryopick",
            got=f"{type(error).__name__}: {error}".splitlines()[0],
            remedy=f"Remove {folder}: that round is made again, or choose another --out",
        ) from error


def write_sums(folder: Path, sums: AverageSums) -> None:
    """Write the running sums of the averages.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    with writing(folder / SUMS) as handle:
        np.savez(handle, **{n: getattr(sums, n).cpu().numpy() for n in _SUMS})


def read_sums(folder: Path, *, forgetting: float) -> AverageSums:
    """Read running sums, less what they forget in a round."""
    import torch

    with (folder / SUMS).open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
        tensors = {n: torch.from_numpy(np.array(arrays[n])) for n in _SUMS}
    for name in _SUMS[:3]:
        tensors[name] *= 1 - forgetting
    return AverageSums(**tensors)


def class_table(
    state: StreamState, classification: Classification, *, before: StreamState | None
) -> pd.DataFrame:
    """Say of each class how large and how sharp it is, and what has become of it in this round.

    Parameters
    ----------
    state, before
        After this round and the one before it.
    classification
        Tables of this round.
    """
    classes = classification.classes
    k = len(classes)
    members = state.em.poses.class_index[state.em.poses.is_member]
    is_new = (state.arrived == state.round)[state.em.poses.is_member]
    drift = np.full(k, np.nan)
    drift[: len(state.drift)] = state.drift
    merged, split = np.zeros(k, np.int64), np.zeros(k, np.int64)
    for change in state.changes:
        (merged if change.kind == "merge" else split)[change.class_index] = change.other + 1
    earlier = np.zeros(k, np.int64)
    if before is not None:
        poses = before.em.poses
        earlier = np.bincount(poses.class_index[poses.is_member], minlength=k)
    return pd.DataFrame(
        {
            "class_number": classes["class_number"].to_numpy(np.int64),
            "particle_count": classes["particle_count"].to_numpy(np.int64),
            "new_particles": np.bincount(members[is_new], minlength=k),
            "count_before": earlier,
            "resolution": classes["estimated_resolution"].to_numpy(np.float64),
            "drift": drift,
            "merged_into": merged,
            "split_from": split,
        }
    )


def write_class_table(folder: Path, table: pd.DataFrame) -> None:
    """Write a table of classes as STAR.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    write_star(folder / CLASSES, {_BLOCK: table.rename(columns=_LABELS)})


def read_class_table(folder: Path) -> pd.DataFrame:
    """Read what `write_class_table` wrote.

    Raises
    ------
    FormatError
        If the file is missing or broken.
    """
    words = {label: name for name, label in _LABELS.items()}
    return read_star(folder / CLASSES)[_BLOCK].rename(columns=words)


def write_xmd_tables(folder: Path, classification: Classification) -> None:
    """Write particles and classes as Xmipp names them.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    particles = classification.particles
    rows = particles.rows.rename(columns={"log_likelihood": "logLikelihood"})
    write_xmd_particles(
        folder / "classes_images.xmd",
        Particles(rows=rows, optics=particles.optics.reset_index(drop=True)),
    )
    classes = classification.classes
    names = [
        f"{number:06d}@{image}"
        for number, image in zip(classes["class_number"], classes["image"], strict=True)
    ]
    table = pd.DataFrame(
        {"ref": classes["class_number"], "image": names, "classCount": classes["particle_count"]}
    )
    write_xmd(folder / "classes_classes.xmd", {"particles": table})


def round_values(
    source: StreamSource, state: StreamState, before: StreamState | None, classes: pd.DataFrame
) -> dict[str, Any]:
    """Gather what the record of a round says of what was found.

    Parameters
    ----------
    source
        All particles.
    state, before
        After this round and the one before it.
    classes
        From `class_table`.
    """
    return {
        "n_useful": len(source),
        "n_junk": int((state.em.poses.junk_probability > 0.5).sum()),
        "box_size": source.images.box_size,
        "pixel_size": source.images.pixel_size,
        "version": state.version,
        "resolution": round(float(state.em.resolution), 3),
        "n_classes": len(classes),
        "n_occupied": int((classes["particle_count"] > 0).sum()),
        "drift": _mean_of_known(classes["drift"].to_numpy()),
        "changed": _changes(before, state),
        "merged": int((classes["merged_into"] > 0).sum()),
        "split": int((classes["split_from"] > 0).sum()),
    }


def _mean_of_known(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return round(float(known.mean()), 4) if len(known) else None


def _changes(before: StreamState | None, after: StreamState) -> dict[str, float] | None:
    """Compare the particles that both know: share with another class, rotation of the others."""
    if before is None:
        return None
    old, new = before.em.poses, after.em.poses
    n = len(old)
    both = old.is_member & new.is_member[:n]
    if not both.any():
        return None
    is_same = both & (old.class_index == new.class_index[:n])
    turn = (new.psi[:n] - old.psi + 180) % 360 - 180
    return {
        "class": round(float(1 - is_same.sum() / both.sum()), 4),
        "psi": round(float(np.abs(turn[is_same]).mean()), 3) if is_same.any() else 0.0,
    }


def round_sentence(made: Round) -> str:
    """Say in one line what a round has found."""
    v = made.values
    changed = v["changed"]
    moved = "" if changed is None else f", {changed['class']:.0%} of the others changed class"
    return (
        f"Round {made.number}: {v['n_particles']:,} particles, {v['n_new']:,} of them new{moved}; "
        f"{v['n_occupied']} classes, {v['resolution']:.1f} A."
    )
