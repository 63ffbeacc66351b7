"""What is known of each field of a project, and how it is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["COLUMNS", "LIMITED", "UNSHOWN", "FieldColumn", "values_of_ctf", "values_of_picks"]


@dataclass(frozen=True, kw_only=True)
class FieldColumn:
    """One column of the table of fields."""

    title: str
    unit: str = ""
    kind: Literal["number", "text", "state"] = "number"
    digits: int = 0  # that people want to see behind the point
    about: str = ""  # what the number is, for those who meet it first


COLUMNS: Mapping[str, FieldColumn] = {
    "number": FieldColumn(title="Number", about="Order in which the project came to know them."),
    "name": FieldColumn(title="Name", kind="text"),
    "time": FieldColumn(title="Time", unit="s", about="When the file was written."),
    "state": FieldColumn(title="State", kind="state"),
    "reason": FieldColumn(title="Why", kind="text", about="Why it is not accepted."),
    "tick": FieldColumn(title="Ticked", kind="state", about="What a person said."),
    "defocus": FieldColumn(
        title="Defocus", unit="Å", about="Mean of both defoci; underfocus is positive."
    ),
    "astigmatism": FieldColumn(
        title="Astigmatism", unit="Å", about="Difference of the greatest and the least defocus."
    ),
    "phase_shift": FieldColumn(title="Phase shift", unit="°", about="Of a phase plate."),
    "ctf_resolution": FieldColumn(
        title="CTF resolution",
        unit="Å",
        digits=2,
        about="Finest detail to which the rings of the spectrum follow the fitted CTF.",
    ),
    "ctf_fom": FieldColumn(
        title="CTF fit",
        digits=3,
        about="Correlation of the spectrum with the fitted CTF; 1 is perfect.",
    ),
    "ctf_trusted": FieldColumn(title="CTF trusted", about="Whether rings are there without doubt."),
    "ice_ring": FieldColumn(
        title="Ice ring",
        digits=3,
        about="Power of the ring of ice at 3.7 Å over that of the rings beside it; 1 is no ring.",
    ),
    "picks": FieldColumn(title="Picks", about="Above the threshold of the picker."),
    "mean_score": FieldColumn(
        title="Mean score", digits=3, about="Mean score of the picks, on the picker's own scale."
    ),
    "threshold": FieldColumn(
        title="Threshold", digits=3, about="Least score of a pick in this micrograph."
    ),
    "searched": FieldColumn(
        title="Searched", digits=3, about="Share of the area in which picks were looked for."
    ),
    "background": FieldColumn(
        title="Ice, carbon, damage", digits=3, about="Share of the area that is left out for them."
    ),
    "particles": FieldColumn(title="Particles", about="That were cut out."),
    "selected": FieldColumn(title="In good classes", about="Particles whose class was selected."),
    "yield": FieldColumn(
        title="Yield", digits=3, about="Share of the picks that ended in good classes."
    ),
    "error": FieldColumn(title="Failed because", kind="text"),
}
UNSHOWN = ("defocus_u", "defocus_v", "defocus_angle")  # Å, Å, degrees
LIMITED = tuple(name for name, column in COLUMNS.items() if column.kind == "number")


def values_of_ctf(summary: Mapping[str, Any]) -> dict[str, float]:
    """Take the columns of a field from a ledger line of ``ctf estimate``."""
    u, v = float(summary["defocus_u"]), float(summary["defocus_v"])
    ice = summary.get("ice_ring")
    return {
        "defocus_u": u,
        "defocus_v": v,
        "defocus_angle": float(summary["defocus_angle"]),
        "defocus": (u + v) / 2,
        "astigmatism": u - v,
        "phase_shift": float(summary.get("phase_shift", 0.0)),
        "ctf_resolution": float(summary["max_resolution"]),
        "ctf_fom": float(summary["figure_of_merit"]),
        "ctf_trusted": float(bool(summary["is_trusted"])),
        "ice_ring": float("nan") if ice is None else float(ice),
    }


def values_of_picks(summary: Mapping[str, Any]) -> dict[str, float]:
    """Take the columns of a field from a ledger line of a picker."""
    count = int(summary["n_picks"])
    values = {
        "picks": float(count),
        "threshold": float(summary.get("threshold", float("nan"))),
        "searched": float(summary.get("valid_fraction", float("nan"))),
    }
    values["background"] = 1 - values["searched"]
    if count:
        values["mean_score"] = float(summary.get("mean_fom", float("nan")))
    return values
