"""Tables of particles are joined without losing what is known of them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cryopick.tables.joining import join_particles
from cryopick.tables.model import Particles
from cryopick.tables.relion import read_particles, write_particles


def particles(n, *, source, name="opticsGroup1", voltage=300.0, number=1, **columns):
    rows = {
        "image": ["stack.mrcs"] * n,
        "image_index": list(range(n)),
        "optics_group": [number] * n,
        **columns,
    }
    optics = {"optics_group": [number], "optics_group_name": [name], "pixel_size": [1.5]}
    return Particles(
        rows=pd.DataFrame(rows),
        optics=pd.DataFrame({**optics, "voltage": [voltage]}),
        source=source,
    )


def test_groups_that_are_alike_become_one(tmp_path):
    parts = [particles(2, source=None), particles(3, source=None, number=7)]

    joined = join_particles(parts, target=tmp_path / "all.star")

    assert len(joined) == 5
    assert joined.optics["optics_group"].tolist() == [1]
    assert set(joined.rows["optics_group"]) == {1}
    assert joined.rows["image_index"].tolist() == [0, 1, 0, 1, 2]


def test_groups_of_one_name_that_differ_stay_apart(tmp_path):
    parts = [particles(1, source=None), particles(1, source=None, voltage=200.0)]

    joined = join_particles(parts, target=tmp_path / "all.star")

    assert joined.optics["voltage"].tolist() == [300.0, 200.0]
    assert joined.optics["optics_group_name"].tolist() == ["opticsGroup1", "opticsGroup1_2"]
    assert joined.rows["optics_group"].tolist() == [1, 2]


def test_a_group_without_particles_is_left_out(tmp_path):
    part = particles(1, source=None)
    more = pd.concat([part.optics, part.optics.assign(optics_group=2, voltage=100.0)])
    part = Particles(rows=part.rows, optics=more)

    assert len(join_particles([part], target=tmp_path / "all.star").optics) == 1


def test_stacks_of_several_folders_are_found_from_the_new_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stack.mrcs").touch()
        parts.append(particles(1, source=tmp_path / name / "particles.star"))

    joined = join_particles(parts, target=tmp_path / "out" / "all.star")

    assert [Path(n).resolve() for n in joined.rows["image"]] == [
        tmp_path / "a" / "stack.mrcs",
        tmp_path / "b" / "stack.mrcs",
    ]


def test_flags_that_a_table_lacks_are_off_and_other_gaps_stay(tmp_path):
    flipped = particles(1, source=None, defocus_u=[9000.0])
    flipped = Particles(rows=flipped.rows, optics=flipped.optics.assign(is_phase_flipped=1))

    joined = join_particles([flipped, particles(1, source=None)], target=tmp_path / "all.star")

    assert joined.optics["is_phase_flipped"].tolist() == [1, 0]
    assert joined.rows["defocus_u"].isna().tolist() == [False, True]


def test_particles_stay_in_the_groups_of_their_own_table(tmp_path):
    named = particles(2, source=None)
    named = Particles(
        rows=named.rows.assign(rlnGroupName=["g", "h"]), optics=named.optics, source=None
    )
    other = particles(2, source=None)
    grouped_by = "micrograph" if "micrograph" in other.rows else "image"

    joined = join_particles([other, named], target=tmp_path / "all.star")

    assert joined.rows["rlnGroupName"].tolist() == [*other.rows[grouped_by], "g", "h"]


def test_whole_numbers_that_one_table_lacks_are_read_again(tmp_path):
    told = particles(2, source=None, class_number=3, group_number=4, is_junk=1, n_significant=7)
    told = Particles(
        rows=told.rows,
        optics=told.optics.assign(image_dimensions=2, is_premultiplied=1, box_size=8),
        source=None,
    )
    target = tmp_path / "all.star"

    write_particles(target, join_particles([particles(1, source=None), told], target=target))

    read = read_particles(target)
    assert read.rows["class_number"].tolist() == [0, 3, 3]
    assert read.rows["is_junk"].tolist() == [0, 1, 1]
    assert read.optics["image_dimensions"].tolist() == [2, 2]
    assert read.optics["is_premultiplied"].tolist() == [0, 1]
    assert not {"group_number", "n_significant"} & set(read.rows)
