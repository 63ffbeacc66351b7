"""RELION's dialect in one place: tables of micrographs, particles and picks, read and written."""

from __future__ import annotations

from cryopick.tables.relion_picks import (
    picks_of_file,
    read_picks,
    write_coordinate_files,
    write_coords_suffix,
    write_picks_file,
    write_summary,
)
from cryopick.tables.relion_tables import (
    read_micrographs,
    read_particles,
    write_micrographs,
    write_particles,
)

__all__ = [
    "picks_of_file",
    "read_micrographs",
    "read_particles",
    "read_picks",
    "write_coordinate_files",
    "write_coords_suffix",
    "write_micrographs",
    "write_particles",
    "write_picks_file",
    "write_summary",
]
