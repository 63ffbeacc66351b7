"""How columns of picks and particles are called on the page, and their units."""

from __future__ import annotations

__all__ = ["title_of_column", "unit_of_column"]

_TITLES = {
    "score": "Score",
    "fom": "Picking score",
    "diameter": "Diameter",
    "class_number": "Class",
    "psi": "In-plane angle",
    "max_probability": "Certainty of the class",
    "junk_probability": "Junk probability",
    "log_likelihood": "Log-likelihood",
    "margin": "Margin over the next class",
    "x": "x",
    "y": "y",
    "shift_x": "Shift in x",
    "shift_y": "Shift in y",
    "defocus_u": "Defocus, greatest",
    "defocus_v": "Defocus, least",
    "defocus_angle": "Direction of the greatest defocus",
    "ctf_resolution": "CTF resolution",
    "ctf_fom": "CTF fit",
    "optics_group": "Optics group",
    "n_significant": "Classes and poses that count",
}
_UNITS = {
    "diameter": "Å",
    "psi": "°",
    "shift_x": "Å",
    "shift_y": "Å",
    "x": "px",
    "y": "px",
    "defocus_u": "Å",
    "defocus_v": "Å",
    "defocus_angle": "°",
    "phase_shift": "°",
    "ctf_resolution": "Å",
}


def title_of_column(name: str) -> str:
    """Call a column as people do.

    Examples
    --------
    >>> title_of_column("shift_x"), title_of_column("bad_pixels")
    ('Shift in x', 'Bad pixels')
    """
    words = name.replace("_", " ")
    return _TITLES.get(name, words[:1].upper() + words[1:])


def unit_of_column(name: str) -> str:
    """Give the unit of a column; empty where it has none."""
    return _UNITS.get(name, "")
