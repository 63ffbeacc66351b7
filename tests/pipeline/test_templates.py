"""Templates come out of every kind of file as white images with a pixel size."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from cryopick.errors import DataError, FormatError, ParameterError, TableError
from cryopick.io.mrc import write_mrc
from cryopick.io.star import write_star
from cryopick.picking.template_parameters import TemplateParameters
from cryopick.pipeline.templates import read_templates
from cryopick.simulation.phantoms import make_phantom
from cryopick.simulation.projection import render_volume

PARAMETERS = TemplateParameters(diameter=120)


@pytest.fixture
def stack(tmp_path):
    images = np.random.default_rng(0).normal(size=(5, 32, 32)).astype(np.float32)
    write_mrc(tmp_path / "averages.mrcs", images, pixel_size=4.0)
    return tmp_path / "averages.mrcs", images


def test_a_stack_is_read_as_it_is(stack):
    path, images = stack

    read, pixel_size, kind, _ = read_templates(path, parameters=PARAMETERS)

    np.testing.assert_array_equal(read.numpy(), images)
    assert (pixel_size, kind) == (4.0, "images")


def test_a_single_image_is_a_stack_of_one(tmp_path):
    write_mrc(tmp_path / "one.mrc", np.eye(16, dtype=np.float32), pixel_size=2.0)

    read, _, kind, _ = read_templates(tmp_path / "one.mrc", parameters=PARAMETERS)

    assert read.shape == (1, 16, 16)
    assert kind == "images"


def test_dark_templates_are_made_white(stack):
    path, images = stack
    dark = dataclasses.replace(PARAMETERS, white_templates=False)

    np.testing.assert_array_equal(read_templates(path, parameters=dark)[0].numpy(), -images)


def test_a_given_pixel_size_goes_before_that_of_the_file(stack):
    path, _ = stack
    given = dataclasses.replace(PARAMETERS, template_pixel_size=3.5)

    assert read_templates(path, parameters=given)[1] == 3.5


def test_a_table_of_averages_names_the_ones_to_take(stack):
    path, images = stack
    table = pd.DataFrame({"rlnReferenceImage": ["000004@Class2D/averages.mrcs", "2@averages.mrcs"]})
    write_star(path.with_name("class_averages.star"), {"": table})

    read, pixel_size, _, _ = read_templates(path.with_name("class_averages.star"),
                                         parameters=PARAMETERS)  # fmt: skip

    np.testing.assert_array_equal(read.numpy(), images[[3, 1]])
    assert pixel_size == 4.0


@pytest.mark.data
@pytest.mark.parametrize("name", ["run_it025_model.star", "run_it025_optimiser.star", ""])
def test_averages_of_a_run_of_relion_are_found(test_data, name):
    folder = test_data / "relion5" / "Class2D" / "job003"

    read, pixel_size, kind, _ = read_templates(folder / name, parameters=PARAMETERS)

    assert read.shape == (20, 64, 64)
    assert pixel_size == pytest.approx(4.0)
    assert kind == "images"


def test_a_map_comes_back_as_its_projections(tmp_path):
    volume = render_volume(make_phantom("barrel", diameter=120), box_size=64, pixel_size=3.0)
    write_mrc(tmp_path / "map.mrc", volume.numpy(), pixel_size=3.0)
    plain = read_templates(tmp_path / "map.mrc", parameters=PARAMETERS)
    symmetric = dataclasses.replace(PARAMETERS, symmetry="D7", projections=20.0)

    few = read_templates(tmp_path / "map.mrc", parameters=symmetric)

    assert plain[2] == few[2] == "map"
    assert 40 < len(plain[0]) < 60
    assert len(few[0]) < 20
    first = plain[0][0]  # along z
    along = torch.nn.functional.interpolate(volume.sum(0)[None, None], first.shape)[0, 0]
    assert torch.corrcoef(torch.stack([first.ravel(), along.ravel()]))[0, 1] > 0.95


def test_what_cannot_be_read_is_refused(tmp_path, stack):
    _, images = stack
    write_mrc(tmp_path / "oblong.mrcs", images[:, :, :20], pixel_size=4.0)
    write_mrc(tmp_path / "broken.mrcs", images * np.nan, pixel_size=4.0)
    write_star(tmp_path / "other.star", {"": pd.DataFrame({"rlnCoordinateX": [1.0]})})

    with pytest.raises(DataError, match="square images; got 20 x 32 px"):
        read_templates(tmp_path / "oblong.mrcs", parameters=PARAMETERS)
    for unsaid in (0.0, 1.0):
        write_mrc(tmp_path / "unknown.mrcs", images, pixel_size=unsaid)
        with pytest.raises(ParameterError, match="template_pixel_size must be known"):
            read_templates(tmp_path / "unknown.mrcs", parameters=PARAMETERS)
    with pytest.raises(DataError, match="finite"):
        read_templates(tmp_path / "broken.mrcs", parameters=PARAMETERS)
    with pytest.raises((TableError, FormatError)):
        read_templates(tmp_path / "other.star", parameters=PARAMETERS)
    with pytest.raises(FormatError, match="no such file"):
        read_templates(tmp_path / "none.mrcs", parameters=PARAMETERS)
    with pytest.raises(FormatError, match="MRC or a STAR file"):
        read_templates(tmp_path / "stack.hdf", parameters=PARAMETERS)
