"""Draw docs/images/picks.png: a simulated field with its picks, and particles of good classes."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from cryopick.execution.parameters import ComputeParameters
from cryopick.io.mrc import read_mrc
from cryopick.pipeline.run import run_project
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.show import read_images
from cryopick.pipeline.simulate import simulate_micrographs
from cryopick.report.figures import figure_to_png, score_colours
from cryopick.report.pictures import picture_of_micrograph
from cryopick.report.plates import draw_gallery, draw_micrograph
from cryopick.simulation.parameters import (
    MicrographSimulationParameters,
    MicroscopeParameters,
    SpecimenParameters,
)
from cryopick.tables.relion import read_particles, read_picks

_PICTURE = Path(__file__).parents[1] / "docs" / "images" / "picks.png"
_PIXEL_SIZE = 2.5  # A/px
_IMAGES = 30
_HEIGHT = 600  # px
_LINE = 3.0  # pt, thick enough for a small picture
_GREYS, _COLOURS = 40, 40  # of the palette


def main() -> None:
    """Simulate, run, draw."""
    with tempfile.TemporaryDirectory() as name:
        field, gallery = _figures(Path(name))
    for circles in field.axes[0].collections:
        circles.set_linewidth(_LINE)
    _PICTURE.parent.mkdir(exist_ok=True)
    _PICTURE.write_bytes(_side_by_side(field, gallery))


def _figures(folder: Path) -> tuple[Figure, Figure]:
    compute = ComputeParameters(workers=1, threads=1)
    simulated = simulate_micrographs(
        folder / "data",
        specimen=SpecimenParameters(),
        microscope=MicroscopeParameters(min_defocus=16000, max_defocus=20000),
        parameters=MicrographSimulationParameters(
            number=5,
            width=1024,
            height=1024,
            pixel_size=_PIXEL_SIZE,
            particles=70,
            carbon_fraction=0,
            ice_blobs=2,
        ),
        compute=compute,
    )
    parameters = RunParameters(training_steps=200)
    run_project([str(simulated.table)], folder / "run", parameters=parameters, compute=compute)
    picture = picture_of_micrograph(
        read_mrc(folder / "data" / "micrographs" / "sim_00001.mrc", dtype=np.float32),
        pixel_size=_PIXEL_SIZE,
        longest_side=_HEIGHT,
    )
    picks = read_picks(folder / "run" / "picks").rows
    picks = picks[picks["micrograph"].str.contains("sim_00001")]
    field = draw_micrograph(picture, picks=picks, default_diameter=180, title="Picks by score")
    table = folder / "run" / "selection" / "particles.star"
    rows = read_particles(table).rows.head(_IMAGES)
    gallery = draw_gallery(
        read_images(rows["image"], rows["image_index"], table=table),
        labels=[""] * len(rows),
        columns=5,
        pixel_size=_PIXEL_SIZE,
        low_pass=15,
        title="Particles of good classes",
    )
    return field, gallery


def _side_by_side(*figures: Figure) -> bytes:
    pictures = [Image.open(io.BytesIO(figure_to_png(f))).convert("RGB") for f in figures]
    small = [
        p.resize((round(p.width * _HEIGHT / p.height), _HEIGHT), Image.Resampling.LANCZOS)
        for p in pictures
    ]
    sheet = Image.new("RGB", (sum(p.width for p in small), _HEIGHT), "white")
    left = 0
    for picture in small:
        sheet.paste(picture, (left, 0))
        left += picture.width
    content = io.BytesIO()
    reduced = sheet.quantize(palette=_palette(), dither=Image.Dither.NONE)
    reduced.save(content, "PNG", optimize=True)
    return content.getvalue()


def _palette() -> Image.Image:
    """Greys for the images and the colours of the scores: a small file with both."""
    greys = [v for grey in np.linspace(0, 255, _GREYS).round() for v in [int(grey)] * 3]
    scores = score_colours(np.linspace(0, 1, _COLOURS), low=0, high=1)
    colours = [v for score in scores for v in bytes.fromhex(score[1:])]
    palette = Image.new("P", (1, 1))
    palette.putpalette(greys + colours)
    return palette


if __name__ == "__main__":
    main()
