"""Draw docs/images/ctf.png: the CTF fit of a real micrograph of apoferritin (EMPIAR-10146)."""

from __future__ import annotations

import argparse
import io
import os
from pathlib import Path

import torch
from PIL import Image

from cryopick.ctf.estimate import estimate_ctf
from cryopick.ctf.half_picture import half_picture
from cryopick.io.micrograph import read_micrograph
from cryopick.report.ctf_picture import draw_ctf
from cryopick.report.figures import figure_to_png

_PICTURE = Path(__file__).parents[1] / "docs" / "images" / "ctf.png"
_FIELD = "apoferritin/micrographs/May08_05.53.51.mrc"
_COLOURS = 128  # of the palette: a small file


def main() -> None:
    """Estimate and draw."""
    options = argparse.ArgumentParser(description=__doc__)
    beside = Path(__file__).parents[2] / "shared" / "data"
    named = os.environ.get("CRYOPICK_TEST_DATA", str(beside))
    options.add_argument("--data", type=Path, default=Path(named), help="Folder of real data.")
    found = estimate_ctf(
        torch.from_numpy(read_micrograph(options.parse_args().data / _FIELD)),
        pixel_size=1.5,
        voltage=300.0,
        spherical_aberration=2.7,
        amplitude_contrast=0.07,
    )
    ctf, curves = found.ctf, found.curves
    figure = draw_ctf(
        half_picture(found).numpy(),
        frequency=curves.frequency.numpy(),
        measured=curves.measured.numpy(),
        model=curves.model.numpy(),
        correlation=curves.correlation.numpy(),
        max_resolution=found.max_resolution,
        title=f"Apoferritin: defocus {ctf.defocus_u:.0f} and {ctf.defocus_v:.0f} Å, "
        f"angle {ctf.defocus_angle:.0f}°, rings to {found.max_resolution:.1f} Å",
    )
    picture = Image.open(io.BytesIO(figure_to_png(figure, dpi=96))).convert("RGB")
    reduced = picture.quantize(_COLOURS, dither=Image.Dither.NONE)
    _PICTURE.parent.mkdir(exist_ok=True)
    reduced.save(_PICTURE, "PNG", optimize=True)


if __name__ == "__main__":
    main()
