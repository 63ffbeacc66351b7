"""Claims about sets of several pickers: names, pixel sizes, formats, and who has looked where."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopick.errors import TableError
from cryopick.pipeline.consensus_sets import consensus_box, find_candidates, read_set
from cryopick.tables.eman import write_box
from cryopick.tables.model import Micrographs
from cryopick.tables.relion import write_coordinate_files, write_picks_file
from cryopick.tables.topaz import write_topaz
from cryopick.tables.xmipp_pos import write_pos, write_pos_config

NAMES = ("MotionCorr/job002/Movies/a.mrc", "MotionCorr/job002/Movies/b.mrc")
PIXEL_SIZE = 1.5


@pytest.fixture
def micrographs():
    return Micrographs(
        rows=pd.DataFrame({"micrograph": list(NAMES), "optics_group": 1}),
        optics=pd.DataFrame({"optics_group": [1], "pixel_size": [PIXEL_SIZE]}),
    )


def places(seed, count=30):
    """Whole positions at least 20 px apart, with scores."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(10), np.arange(10)), -1).reshape(-1, 2) * 40.0 + 40
    chosen = grid[random.permutation(100)[:count]] + random.integers(-9, 10, (count, 2))
    return pd.DataFrame({"x": chosen[:, 0], "y": chosen[:, 1], "fom": random.random(count)})


def write_relion(folder: Path, tables, names=NAMES, scale=1.0):
    folder.mkdir()
    files = []
    for name, table in zip(names, tables, strict=True):
        path = folder / f"{Path(name).stem}_autopick.star"
        write_picks_file(path, table.assign(x=table["x"] * scale, y=table["y"] * scale))
        files.append((name, str(path)))
    write_coordinate_files(folder / "autopick.star", files)
    return folder


def assert_same(one, other, *, scores=True):
    assert one.positions.keys() == other.positions.keys()
    for name in one.positions:
        a, b = np.lexsort(one.positions[name].T), np.lexsort(other.positions[name].T)
        np.testing.assert_allclose(other.positions[name][b], one.positions[name][a], atol=1e-5)
        if scores:
            np.testing.assert_allclose(other.scores[name][b], one.scores[name][a], atol=1e-5)


def test_a_set_is_the_same_at_half_pixel_size_and_with_other_names(tmp_path, micrographs):
    tables = [places(1), places(2)]
    whole = read_set(write_relion(tmp_path / "whole", tables), micrographs)
    half = write_relion(tmp_path / "half", tables, ("Import/b7/a.mrc", "b.mrc"), scale=0.5)

    assert whole.count == 60
    assert_same(whole, read_set(half, micrographs, pixel_size=2 * PIXEL_SIZE))


def test_a_set_is_the_same_in_every_format(tmp_path, micrographs):
    tables = [places(1), places(2)]
    whole = read_set(write_relion(tmp_path / "relion", tables), micrographs)

    for program in ("xmipp", "eman"):
        (tmp_path / program).mkdir()
    for name, table in zip("ab", tables, strict=True):
        write_pos(tmp_path / f"xmipp/{name}.pos", table)
        write_box(tmp_path / f"eman/{name}.box", table, box_size=64)
    named = [t.assign(micrograph=n) for t, n in zip(tables, NAMES, strict=True)]
    write_topaz(tmp_path / "topaz.txt", pd.concat(named))
    write_pos_config(tmp_path / "xmipp/config.xmd", box_size=64)

    assert_same(whole, read_set(tmp_path / "xmipp", micrographs), scores=True)
    assert_same(whole, read_set(tmp_path / "topaz.txt", micrographs), scores=True)
    assert_same(whole, read_set(tmp_path / "eman", micrographs), scores=False)


def test_the_box_is_the_one_given_else_of_the_first_set_that_says_it_else_the_usual(
    tmp_path, micrographs
):
    plain = read_set(write_relion(tmp_path / "plain", [places(1), places(2)]), micrographs)
    (tmp_path / "xmipp").mkdir()
    write_pos(tmp_path / "xmipp/a.pos", places(1))
    write_pos_config(tmp_path / "xmipp/config.xmd", box_size=64)
    boxed = read_set(tmp_path / "xmipp", micrographs, pixel_size=3.0)

    assert consensus_box([plain, boxed], given=None, usual=150.0) == 64 * 3.0
    assert consensus_box([plain, boxed], given=100.0, usual=150.0) == 100.0
    assert consensus_box([plain], given=None, usual=150.0) == 150.0


def test_a_micrograph_where_one_picker_found_nothing_keeps_the_candidates_of_the_others(
    tmp_path, micrographs
):
    one = read_set(write_relion(tmp_path / "one", [places(1), places(2)]), micrographs)
    empty = places(3).iloc[:0]
    other = read_set(write_relion(tmp_path / "other", [places(1), empty]), micrographs)
    partly = read_set(write_relion(tmp_path / "third", [places(1)], NAMES[:1]), micrographs)

    first, second = find_candidates(micrographs, [one, other, partly], radius=12.0)
    assert first.found.votes.tolist() == [3] * 30
    assert second.found.votes.tolist() == [1] * 30
    assert first.is_seen.tolist() == [True, True, True]
    assert second.is_seen.tolist() == [True, True, False]  # the third did not look there


def test_micrographs_that_nobody_lists_are_counted_and_left_out(tmp_path, micrographs):
    own = read_set(write_relion(tmp_path / "own", [places(1), places(2)], ("a.mrc", "c.mrc")),
                   micrographs)  # fmt: skip
    assert own.n_unlisted == 1
    assert list(own.positions) == [NAMES[0]]

    other = write_relion(tmp_path / "other", [places(1), places(2)], ("x.mrc", "y.mrc"))
    with pytest.raises(TableError, match=r"must name micrographs that MICROGRAPHS lists"):
        read_set(other, micrographs)


def test_a_position_that_is_no_number_is_refused(tmp_path, micrographs):
    broken = places(1)
    broken.loc[3, "x"] = np.nan
    with pytest.raises(TableError, match="must give finite positions"):
        read_set(write_relion(tmp_path / "set", [broken, places(2)]), micrographs)


def test_a_name_that_fits_two_micrographs_is_refused(tmp_path):
    table = Micrographs(
        rows=pd.DataFrame({"micrograph": ["1/a.mrc", "2/a.mrc", "2/b.mrc"], "optics_group": 1}),
        optics=pd.DataFrame({"optics_group": [1], "pixel_size": [PIXEL_SIZE]}),
    )
    bare = write_relion(tmp_path / "bare", [places(1), places(2)], ("a.mrc", "b.mrc"))
    whole = write_relion(tmp_path / "whole", [places(1), places(2)], ("2/a.mrc", "2/b.mrc"))

    with pytest.raises(TableError, match=r"one micrograph by a\.mrc; got 2 that fit"):
        read_set(bare, table)
    assert set(read_set(whole, table).positions) == {"2/a.mrc", "2/b.mrc"}
