"""Quality of template picking on real fields, and picks in fields without particles.

The apoferritin fields are picked with class averages of a first round (``pick log``, ``extract``,
``class2d em --classes 10``), the fields without particles with projections of a simulated shell of
150 A at a pixel size taken to be 8 A. AP and best F1 are over all stored peaks, F1 as shipped over
the picks; a pick within 0.3 diameters of the truth is right. Nothing is asserted.

    python benchmarks/template_quality.py --data ../shared/data --averages run_it025_model.star
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cryopick.ctf.field_ctf import FieldCtf
from cryopick.io.micrograph import read_micrograph
from cryopick.picking.evaluate import evaluate_picks
from cryopick.picking.field_picks import FieldPicks
from cryopick.picking.template import pick_template
from cryopick.picking.template_harmonics import Templates, prepare_templates
from cryopick.picking.template_parameters import TemplateParameters
from cryopick.pipeline.templates import read_templates
from cryopick.simulation.orientations import draw_angles, euler_matrices
from cryopick.simulation.phantoms import make_phantom
from cryopick.simulation.projection import project
from cryopick.tables.micrographs import open_micrographs
from cryopick.tables.relion import picks_of_file

_EMPTY = ("empty_no_ice", "empty_ice_no_particles_but_vitreous_ice", "crystalline_ice")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    beside = Path(__file__).parents[2] / "shared" / "data"
    named = os.environ.get("CRYOPICK_TEST_DATA", str(beside))
    options.add_argument("--data", type=Path, default=Path(named), help="Folder of real data.")
    options.add_argument("--averages", type=Path, help="Class averages of apoferritin.")
    options.add_argument("--ctf", help="STAR file of `cryopick ctf estimate` on these fields.")
    given = options.parse_args()
    torch.set_num_threads(1)
    if given.averages is not None:
        _apoferritin(given.data / "apoferritin", given.averages, _ctfs(given.ctf))
    _empty_fields(given.data / "junk_micrographs")


def _apoferritin(folder: Path, averages: Path, ctfs: dict[str, FieldCtf]) -> None:
    parameters = TemplateParameters(diameter=125)
    images, pixel_size, _ = read_templates(averages, parameters=parameters)
    templates = _prepare(images, pixel_size, parameters)
    peaks, truth = [], []
    for path in sorted((folder / "micrographs").glob("*.mrc")):
        found = _pick(path, 1.5, templates, parameters, ctfs.get(path.name))
        table = pd.DataFrame({"micrograph": path.name, "x": found.x, "y": found.y})
        peaks.append(table.assign(fom=found.fom, is_pick=found.is_pick))
        truth.append(picks_of_file(folder / "coordinates" / f"{path.stem}.star", path.name))
    rows, known = pd.concat(peaks), pd.concat(truth)
    sizes = dict.fromkeys(known["micrograph"].unique(), 1.5)
    at_all = evaluate_picks(rows, known, pixel_sizes=sizes, diameter=125).total
    shipped = evaluate_picks(rows[rows["is_pick"]], known, pixel_sizes=sizes, diameter=125).total
    print(
        f"apoferritin, {len(ctfs)} CTFs: AP {at_all.average_precision:.3f}  best F1 "
        f"{at_all.best_f1:.3f}  F1 as shipped {shipped.f1:.3f} (precision "
        f"{shipped.precision:.3f}, recall {shipped.recall:.3f})"
    )


def _empty_fields(folder: Path) -> None:
    angles = draw_angles(10, generator=np.random.default_rng(0))
    shell = make_phantom("shell", diameter=150)
    stack = project(shell, euler_matrices(angles), box_size=64, pixel_size=4.0)
    parameters = TemplateParameters(diameter=150)
    templates = _prepare(stack, 4.0, parameters)
    for name in _EMPTY:
        counts = [
            int(_pick(path, 8.0, templates, parameters, None).is_pick.sum())
            for path in sorted((folder / name).iterdir())
        ]
        print(f"{name:42s} picks in each field: {counts}")


def _prepare(images: torch.Tensor, pixel_size: float, parameters: TemplateParameters) -> Templates:
    return prepare_templates(
        images,
        template_pixel_size=pixel_size,
        diameter=parameters.diameter,
        low_pass=parameters.low_pass,
    )


def _pick(
    path: Path,
    pixel_size: float,
    templates: Templates,
    parameters: TemplateParameters,
    ctf: FieldCtf | None,
) -> FieldPicks:
    return pick_template(
        torch.from_numpy(read_micrograph(path)).float(),
        pixel_size=pixel_size,
        templates=templates,
        parameters=parameters,
        ctf=ctf,
    )


def _ctfs(star: str | None) -> dict[str, FieldCtf]:
    if star is None:
        return {}
    table = open_micrographs([star])
    lens = table.optics.iloc[0]
    shared = ("voltage", "spherical_aberration", "amplitude_contrast")
    return {
        Path(str(row["micrograph"])).name: FieldCtf(
            *(row[["defocus_u", "defocus_v", "defocus_angle"]]), *(float(lens[n]) for n in shared)
        )
        for _, row in table.rows.iterrows()
    }


if __name__ == "__main__":
    main()
