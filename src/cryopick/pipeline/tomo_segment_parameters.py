"""What a segmentation of tomograms writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cryopick.parameters import Parameters, option

__all__ = ["SegmentOutputParameters"]


@dataclass(frozen=True, kw_only=True)
class SegmentOutputParameters(Parameters):
    """Output of a segmentation."""

    format: Literal["mrc", "zarr"] = option(
        "mrc", help="Of the volumes: MRC, or OME-Zarr, which is compressed."
    )
    posterior_type: Literal["float16", "float32"] = option(
        "float16", help="Numbers of posterior volumes."
    )
    all_posteriors: bool = option(
        default=False, help="Write a posterior of each cluster, not one of all particles."
    )
    hdf5: bool = option(default=False, help="Write PickET's HDF5 files, too.")
