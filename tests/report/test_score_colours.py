"""The scale of colours beside a micrograph says what the scores are and where they end."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cryopick.report.pictures import Picture
from cryopick.report.plates import draw_micrograph


def scale_of(limits, **given):
    picture = Picture(pixels=np.full((100, 100), 90, np.uint8), scale=1.0, pixel_size=4.0)
    picks = pd.DataFrame({"x": [20.0, 50, 80], "y": [50.0] * 3, "fom": [2.0, 5, 8]})
    figure = draw_micrograph(
        picture, picks=picks, default_diameter=60.0, score_limits=limits, **given
    )
    _, axes = figure.axes
    return axes


def test_the_scale_is_named_by_the_meaning_of_the_score():
    assert scale_of((None, None), score_name="Probability of a particle").get_ylabel() == (
        "Probability of a particle"
    )
    assert scale_of((None, None)).get_ylabel() == "Score"


def test_the_scale_runs_between_the_two_scores_given():
    low, high = scale_of((3.0, 6.0)).get_ylim()

    assert (low, high) == (3.0, 6.0)


@pytest.mark.parametrize(
    ("limits", "count"), [((1.0, 9.0), 0), ((3.0, 9.0), 1), ((1.0, 6.0), 1), ((3.0, 6.0), 2)]
)
def test_the_scale_is_pointed_where_scores_lie_beyond(limits, count):
    assert len(scale_of(limits).patches) == count  # one for each point
