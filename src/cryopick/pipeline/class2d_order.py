"""Put the class averages of a file in order and write them, aligned, for several programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cryopick.class2d.ordering import Ordering, apply_ordering, order_averages
from cryopick.class2d.ordering_parameters import OrderingParameters
from cryopick.errors import DataError, OutputError, ParameterError
from cryopick.execution.local import require_devices
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.atomic import output_errors, write_json
from cryopick.io.eman_hdf_attributes import is_like_ctf
from cryopick.io.eman_hdf_lists import list_path
from cryopick.io.eman_hdf_write import write_eman_stack
from cryopick.io.mrc import write_mrc
from cryopick.io.star import write_star
from cryopick.pipeline.class2d_order_source import AveragesToOrder, read_averages_to_order
from cryopick.pipeline.class2d_parameters import MachineParameters
from cryopick.pipeline.job import Job, identity_of
from cryopick.pipeline.memory_plan import memory_limit
from cryopick.report.order_gallery import write_order

__all__ = ["FILES", "OrderedAverages", "order_class_averages"]

_NAME = "class2d order"
_HDF, _MRC, _STAR, _PNG, _JSON = (
    f"ordered_class_averages.{kind}" for kind in ("hdf", "mrcs", "star", "png", "json")
)
FILES = (_JSON, _STAR, _HDF, list_path(Path(_HDF)).name, _MRC, _PNG)
_OF_BOX = 0.9  # where nobody says how large particles are
_BYTES = 16  # for each pair of averages: distances, twice, and what a search makes of them


@dataclass(frozen=True, kw_only=True)
class OrderedAverages:
    """What was written; `values` are ready for JSON."""

    values: dict[str, Any]


def order_class_averages(
    averages: Path,
    out: Path,
    *,
    parameters: OrderingParameters,
    compute: MachineParameters,
    pixel_size: float | None = None,
    overwrite: bool = False,
    progress: Callable[[float], None] | None = None,
) -> OrderedAverages:
    """Order averages so that neighbours look alike, and align each to the one before.

    A killed job leaves no file half written; the same command does it again, with the same result.

    Parameters
    ----------
    averages
        An MRC stack, an HDF stack of EMAN2, a table such as ``class_averages.star``, Xmipp's
        table of classes, a run of RELION or cryopick, or a selection of classes. Empty classes
        are left out.
    out
        Folder of the job.
    parameters, compute
        How, and on which machine.
    pixel_size
        A/px, instead of what the file says.
    overwrite
        Replace what another job of this kind left in `out`.
    progress
        Called with the share that is done.

    Returns
    -------
    OrderedAverages
        Counts, similarities and files; also in ``ordered_class_averages.json``.

    Raises
    ------
    DataError
        If there is no average with density, or one holds values that are not numbers.
    CryopickError
        If the averages cannot be read, the parameters do not go with them, or `out` cannot be
        written or holds something else.
    """
    out, device = Path(out), _one_device(compute)
    source = read_averages_to_order(averages)
    if any(out.resolve() == f.resolve().parent for f in source.files):
        raise OutputError(
            str(out), must="be another folder than that of the input", got="the same",
            remedy="Choose another --out",
        )  # fmt: skip
    job = Job(
        out,
        name=_NAME,
        parameters={
            "averages of": f"{averages} ({identity_of(*source.files)})",
            **parameters.to_dict(),
            "pixel_size": pixel_size,
        },
        inputs=[str(averages)],
        results=FILES,
        overwrite=overwrite,
    )
    job.stored_parameters()  # refuses a folder before there is work
    used = _used(averages, source)
    size = pixel_size or source.pixel_size
    _require_memory(len(used), compute)
    images = torch.from_numpy(np.ascontiguousarray(source.images[used])).to(device)
    ordering = order_averages(
        images,
        diameter=_diameter(parameters, source, size),
        shift_range=_shift_range(parameters, size),
        mirrors=parameters.mirrors,
        threads=compute.n_threads,
        progress=progress,
    )
    moved = apply_ordering(images, ordering).cpu().numpy()
    with job:
        for name in FILES:
            with output_errors(out / name):
                (out / name).unlink(missing_ok=True)
        return OrderedAverages(
            values=_write(out, Path(averages), source, used, ordering, moved, size)
        )


def _one_device(compute: MachineParameters) -> str:
    require_devices(ComputeParameters(device=compute.device))
    if len(compute.devices) > 1:
        raise ParameterError(
            "device", must="be one device for this command", got=compute.device,
            remedy=f"Give --device {compute.devices[0]}",
        )  # fmt: skip
    return compute.devices[0]


def _used(path: Path, source: AveragesToOrder) -> NDArray[np.int64]:
    """Places of the averages that show something."""
    if not np.isfinite(source.images).all():
        raise DataError(
            str(path), must="have finite pixel values", got="NaN or infinity",
            remedy="Make the averages again",
        )  # fmt: skip
    used = np.flatnonzero(source.has_density)
    if not len(used):
        raise DataError(
            str(path), must="hold an average with density", got=f"{len(source.images)} empty ones",
            remedy="Give another run",
        )  # fmt: skip
    return used


def _require_memory(n: int, compute: MachineParameters) -> None:
    needed, limit = _BYTES * n * n, memory_limit(compute.memory)
    if needed > limit:
        raise ParameterError(
            "memory", must=f"be at least {needed / 1e9:.1f} GB for {n:,} averages",
            got=f"{limit / 1e9:.1f} GB", remedy="Order a part of them, or raise --memory",
        )  # fmt: skip


def _diameter(
    parameters: OrderingParameters, source: AveragesToOrder, pixel_size: float | None
) -> float:
    """Circle that is compared, px."""
    box = int(source.images.shape[-1])
    if parameters.radius is not None:
        return 2 * parameters.radius
    if parameters.diameter is not None:
        if pixel_size is None:
            raise ParameterError(
                "diameter", must="come with the pixel size of the averages",
                got=f"{source.files[0]}, which does not say it",
                remedy="Add --pixel-size, or give --radius in pixels",
            )  # fmt: skip
        return parameters.diameter / pixel_size
    if source.mask_diameter is not None and pixel_size is not None:
        return min(source.mask_diameter / pixel_size, float(box))
    return _OF_BOX * float(box)


def _shift_range(parameters: OrderingParameters, pixel_size: float | None) -> float | None:
    if parameters.shift_range is None:
        return None
    if pixel_size is None:
        raise ParameterError(
            "shift_range", must="come with the pixel size of the averages",
            got="averages that do not say it", remedy="Add --pixel-size",
        )  # fmt: skip
    return parameters.shift_range / pixel_size


def _write(
    out: Path,
    path: Path,
    source: AveragesToOrder,
    used: NDArray[np.int64],
    ordering: Ordering,
    images: NDArray[np.float32],
    pixel_size: float | None,
) -> dict[str, Any]:
    places = used[ordering.order]
    size = pixel_size or 1.0
    write_mrc(out / _MRC, images, pixel_size=size)
    headers = [_header(path, source, int(p), float(s)) for p, s in _pairs(places, ordering)]
    written = write_eman_stack(out / _HDF, images, pixel_size=size, attributes=headers)
    numbers = source.numbers[places]
    write_order(out / _PNG, images, numbers=numbers, similarity=ordering.similarity)
    write_star(out / _STAR, {"": _rows(out, source, places, ordering, size)})
    known = ordering.similarity[1:]
    files = [_MRC, *(f.name for f in written), _PNG, _STAR, _JSON]
    values = {
        "n_averages": len(places),
        "n_empty": len(source.images) - len(places),
        "pixel_size": pixel_size,
        "mean_similarity": round(float(known.mean()), 4) if len(known) else None,
        "least_similarity": round(float(known.min()), 4) if len(known) else None,
        "order": numbers.tolist(),
        "similarity": [None if np.isnan(s) else round(float(s), 4) for s in ordering.similarity],
        "n_mirrored": int(ordering.mirrors.sum()),
        "folder": str(out),
        "stack": str(out / _HDF),
        "gallery": str(out / _PNG),
        "files": files,
    }
    write_json(out / _JSON, values)
    return values


def _pairs(places: NDArray[np.int64], ordering: Ordering) -> Any:
    return zip(places, ordering.similarity, strict=True)


def _header(path: Path, source: AveragesToOrder, place: int, similarity: float) -> dict[str, Any]:
    """Hand on attributes, and say where an average was and how like the one before it is."""
    known = source.headers[place] if source.headers else {}
    header = {n: v for n, v in known.items() if not is_like_ctf(n, v)}
    if source.counts is not None:
        header["n_objects"] = int(source.counts[place])
    header |= {"source_path": str(path.resolve()), "source_n": place}
    if np.isfinite(similarity):
        header["similarity"] = similarity
    return header


def _rows(
    out: Path,
    source: AveragesToOrder,
    places: NDArray[np.int64],
    ordering: Ordering,
    pixel_size: float,
) -> pd.DataFrame:
    rows = pd.DataFrame(
        {
            "rlnReferenceImage": [f"{n:06d}@{out / _MRC}" for n in range(1, len(places) + 1)],
            "rlnClassNumber": source.numbers[places],
            "cryopickSimilarity": ordering.similarity,
            "rlnAnglePsi": ordering.angles,
            "rlnOriginXAngst": ordering.shifts[:, 0] * pixel_size,
            "rlnOriginYAngst": ordering.shifts[:, 1] * pixel_size,
            "cryopickIsMirrored": ordering.mirrors.astype(np.int64),
        }
    )
    if source.counts is not None:
        rows["cryopickParticleCount"] = source.counts[places]
    if source.columns is not None:
        for name in source.columns:
            if name not in rows:
                rows[name] = source.columns[name].to_numpy()[places]
    return rows
