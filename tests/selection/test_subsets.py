"""Choosing rows: values, duplicates, distances, splits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cryopick.errors import ParameterError, TableError
from cryopick.selection.subset_parameters import SubsetParameters
from cryopick.selection.subsets import first_of_each, select_by_value, select_distant, split_rows


def crowd(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    names = rng.choice(["a.mrc", "b.mrc", "c.mrc"], n)
    return pd.DataFrame(
        {"micrograph": names, "x": rng.uniform(0, 200, n), "y": rng.uniform(0, 200, n)}
    )


def test_limits_are_closed_and_nan_lies_within_none():
    rows = pd.DataFrame({"fom": [0.1, 0.5, np.nan, 0.9, np.inf, -np.inf]})

    assert select_by_value(rows, "fom", minimum=0.5, maximum=0.9).index.tolist() == [1, 3]
    assert select_by_value(rows, "fom", minimum=0.5).index.tolist() == [1, 3, 4]
    assert select_by_value(rows, "fom", maximum=0.1).index.tolist() == [0, 5]


def test_text_and_missing_columns_are_refused():
    rows = pd.DataFrame({"name": ["a"]})

    with pytest.raises(TableError, match="column name must hold numbers"):
        select_by_value(rows, "name", minimum=0)
    with pytest.raises(TableError, match="must have a column for fom"):
        select_by_value(rows, "fom", minimum=0)


def test_the_first_of_equal_rows_is_kept():
    rows = pd.DataFrame({"image": ["a", "a", "b", "a"], "image_index": [0, 1, 0, 0]})

    assert first_of_each(rows, ["image", "image_index"]).index.tolist() == [0, 1, 2]


def test_distances_are_those_of_a_plain_loop():
    rows = crowd(300)
    kept: list[int] = []
    for i, row in rows.iterrows():
        near = [
            k
            for k in kept
            if rows["micrograph"][k] == row["micrograph"]
            and np.hypot(rows["x"][k] - row["x"], rows["y"][k] - row["y"]) * 1.5 < 24
        ]
        if not near:
            kept.append(int(str(i)))

    found = select_distant(rows, min_distance=24, pixel_size=1.5)

    assert found.index.tolist() == kept
    assert 30 < len(kept) < 290  # the case is not trivial


def test_offsets_move_the_centre_as_in_relion():
    rows = pd.DataFrame(
        {"micrograph": "a", "x": [0.0, 100.0], "y": 0.0, "shift_x": [-150.0, 0.0], "shift_y": 0.0}
    )

    found = select_distant(rows, min_distance=10, pixel_size=1.5)  # 0 + 150 / 1.5 = 100 px

    assert found.index.tolist() == [0]


def test_every_row_may_have_its_own_pixel_size():
    rows = pd.DataFrame({"micrograph": ["a", "a", "b", "b"], "x": [0.0, 10, 0, 10], "y": 0.0})

    found = select_distant(rows, min_distance=15, pixel_size=np.array([1.0, 1, 2, 2]))

    assert found.index.tolist() == [0, 2, 3]


def test_rows_just_at_the_distance_are_kept():
    rows = pd.DataFrame({"micrograph": "a", "x": [0.0, 10.0], "y": 0.0})

    assert len(select_distant(rows, min_distance=10, pixel_size=1.0)) == 2


def test_positions_that_are_not_finite_are_refused():
    rows = pd.DataFrame({"micrograph": "a", "x": [0.0, np.nan], "y": 0.0})

    with pytest.raises(TableError, match="row 2"):
        select_distant(rows, min_distance=10, pixel_size=1.0)


def test_an_empty_table_stays_empty():
    assert len(select_distant(crowd(0), min_distance=10, pixel_size=1.0)) == 0


@pytest.mark.parametrize("seed", [None, 0, 7])
@pytest.mark.parametrize("how", [{"n_subsets": 3}, {"subset_size": 4}, {"n_subsets": 10}])
def test_a_split_deals_every_row_once(how, seed):
    parts = split_rows(10, **how, seed=seed)

    assert np.sort(np.concatenate(parts)).tolist() == list(range(10))
    if "n_subsets" in how:
        assert len(parts) == how["n_subsets"]
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    else:
        assert [len(p) for p in parts] == [4, 4, 2]
    for part in parts:
        assert (np.diff(part) > 0).all()


def test_a_seed_decides_the_split():
    first, again, other = (split_rows(100, n_subsets=2, seed=s)[0].tolist() for s in (1, 1, 2))

    assert first == again
    assert first != other
    assert first != list(range(50))


def test_number_and_size_together_leave_rows_over():
    assert [p.tolist() for p in split_rows(10, n_subsets=2, subset_size=3)] == [
        [0, 1, 2],
        [3, 4, 5],
    ]


@pytest.mark.parametrize("how", [{"n_subsets": 4}, {"n_subsets": 3, "subset_size": 2}, {}])
def test_more_subsets_than_rows_are_refused(how):
    with pytest.raises(ParameterError, match="n_subsets must be"):
        split_rows(3, **how)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "must be told what to keep"),
        ({"by": "fom"}, "by must come with min_value or max_value; got fom alone"),
        ({"min_value": 1.0}, "got a limit alone"),
        ({"by": "fom", "min_value": 2.0, "max_value": 1.0}, "min_value must be at most max_value"),
        ({"random_order": True, "remove_duplicates": True}, "random_order must come with"),
        ({"n_subsets": 0}, "n_subsets must be at least 1"),
        ({"min_distance": 0.0}, "min_distance must be above 0 A"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(values, expected):
    with pytest.raises(ParameterError) as caught:
        SubsetParameters(**values)

    assert expected in str(caught.value)
