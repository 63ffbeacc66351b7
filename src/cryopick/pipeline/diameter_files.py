"""What a picking job keeps of an estimated diameter: numbers and a chart."""

from __future__ import annotations

import contextlib
from pathlib import Path

from cryopick.io.atomic import write_json, writing
from cryopick.picking.diameter import DiameterEstimate

__all__ = ["write_diameter"]


def write_diameter(folder: Path, estimate: DiameterEstimate) -> None:
    """Write ``diameter.json`` and ``diameter.png``.

    Raises
    ------
    OutputError
        If the numbers cannot be written.
    """
    stored = {
        "diameter": estimate.diameter,
        "min_diameter": estimate.min_diameter,
        "max_diameter": estimate.max_diameter,
        "candidates": estimate.candidates.tolist(),
        "gains": estimate.gains.tolist(),
        "n_picks": estimate.n_picks.tolist(),
        "is_part": estimate.is_part.tolist(),
    }
    write_json(folder / "diameter.json", stored)
    with contextlib.suppress(Exception):  # no fault of drawing may cost the estimate
        from cryopick.report.diameter_chart import plot_diameter_estimate
        from cryopick.report.figures import figure_to_png

        figure = plot_diameter_estimate(
            estimate.candidates,
            estimate.gains,
            diameter=estimate.diameter,
            limits=(estimate.min_diameter, estimate.max_diameter),
            is_part=estimate.is_part,
        )
        with writing(folder / "diameter.png") as handle:
            handle.write(figure_to_png(figure))
