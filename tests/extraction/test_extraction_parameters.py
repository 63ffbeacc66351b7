from __future__ import annotations

import pytest

from cryopick.errors import ParameterError
from cryopick.extraction.extraction_parameters import ExtractionParameters


def test_an_odd_box_is_refused_with_the_next_even_size():
    with pytest.raises(
        ParameterError, match=r"box_size must be an even number; got 127 px. Try 128"
    ):
        ExtractionParameters(box_size=127)


@pytest.mark.parametrize(
    "values",
    [
        {"rescale": 130},
        {"rescale": 33},
        {"background_diameter": 129.0},
        {"phase_flip": True, "premultiply": True},
        {"premultiply": True, "ctf_box_size": 64},
        {"recenter": True, "reset_offsets": True},
        {"recenter_z": 3.0},
        {"normalize": False, "white_dust": 3.0},
        {"relion_parity": True, "black_dust": 3.0},
        {"edges": "wrap"},
    ],
)
def test_values_that_contradict_each_other_are_refused(values):
    with pytest.raises(ParameterError):
        ExtractionParameters(box_size=128, **values)


@pytest.mark.parametrize(
    ("box_size", "rescale", "diameter", "radius"),
    [(256, 64, 200.0, 25), (256, 64, -1.0, 24), (128, 0, -1.0, 48), (100, 0, -1.0, 37)],
)
def test_the_background_circle_is_that_of_relions_window(box_size, rescale, diameter, radius):
    parameters = ExtractionParameters(
        box_size=box_size, rescale=rescale, background_diameter=diameter
    )

    assert parameters.background_radius == radius


def test_one_switch_stands_for_relions_positions_edges_and_origins():
    resolved = ExtractionParameters(box_size=64, relion_parity=True).resolved()

    assert (resolved.positions, resolved.edges, resolved.residuals) == (
        "truncate",
        "replicate",
        False,
    )


def test_the_ctf_needs_no_larger_box_where_it_is_not_applied():
    assert ExtractionParameters(box_size=64, ctf_box_size=100).filter_box_size == 64
    assert ExtractionParameters(box_size=64, premultiply=True).filter_box_size == 128
    assert ExtractionParameters(box_size=64, phase_flip=True, ctf_box_size=90).filter_box_size == 90
