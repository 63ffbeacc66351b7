"""The folder of a selection stands for the classes that were kept, wherever averages are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from classification_world import PIXEL, SIZE
from selection_world import MASK, averages, select

from cryopick.picking.template_parameters import TemplateParameters
from cryopick.pipeline.class2d_references import read_averages, read_references
from cryopick.pipeline.show import show
from cryopick.pipeline.templates import read_templates
from cryopick.report.show_parameters import ShowParameters

pytest_plugins = ("selection_world",)

KEPT = (2, 5)


@pytest.mark.parametrize("gone", [(), ("class_scores.star",)])  # RELION writes no scores of ours
def test_rejected_classes_do_not_come_back_with_the_folder(project, gone):
    kept = select(classes="2,5")["selected"]
    for name in gone:
        (Path("sel") / name).unlink()
    expected = averages().numpy()[np.array(kept) - 1]

    folder = Path("sel")
    references = read_references(folder, n_classes=2, box_size=SIZE, pixel_size=PIXEL)
    templates = read_templates(folder, parameters=TemplateParameters(diameter=MASK))
    said = show(folder, out=Path("sel.png"), parameters=ShowParameters())

    assert sorted(kept) == list(KEPT)
    np.testing.assert_array_equal(references.numpy(), expected)
    np.testing.assert_array_equal(templates.images.numpy(), expected)
    assert templates.pixel_size == PIXEL
    assert said == "2 of 2 classes that were kept in sel, with number."
    assert Path("sel.png").exists()


def test_a_run_still_gives_all_its_classes(project):
    select(classes="2")

    assert len(read_averages(Path("Class2D/job003"))[0]) == 5
    assert len(read_averages(Path("sel/rank_model.star"))[0]) == 5
