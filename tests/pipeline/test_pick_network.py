"""``pick network``: what a model trained on three fields finds in the fourth, and how it is run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from network_world import DIAMETER, TABLE, run

from cryopick.errors import FormatError, ProjectError
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.star import read_star
from cryopick.picking.network import PickNetwork
from cryopick.picking.network_parameters import NetworkParameters
from cryopick.picking.network_pick import PickModel
from cryopick.pipeline.evaluate import evaluate_pick_files
from cryopick.pipeline.network_picker import make_network_picker
from cryopick.pipeline.pick_models import write_model
from cryopick.pipeline.picking import pick_micrographs
from cryopick.tables.relion import picks_of_file

pytest_plugins = ("topaz_world", "network_world")


def pick(out, *, model="model.npz", workers=1, threads=1, **given):
    parameters = NetworkParameters(**{"diameter": DIAMETER, **given})
    return pick_micrographs(
        [TABLE],
        Path(out),
        picker=make_network_picker(Path(model), parameters=parameters),
        compute=ComputeParameters(workers=workers, threads=threads),
    )


def picks_in(folder):
    files = sorted((Path(folder) / "micrographs").glob("*_autopick.star"))
    assert len(files) == 4
    return [picks_of_file(f, "a.mrc") for f in files]


@pytest.mark.slow
def test_half_the_particles_of_three_fields_teach_to_find_those_of_the_fourth(network_project):
    pick("pick")
    scores = evaluate_pick_files(Path("pick"), Path("truth.json"))

    fourth = sorted(scores.peaks.micrographs)[-1]
    assert scores.peaks.micrographs[fourth].average_precision > 0.95
    assert scores.picks.micrographs[fourth].f1 > 0.9
    assert scores.picks.total.centring_error < 6.0  # A, 1.5 px
    for picks in picks_in("pick"):
        assert picks["fom"].between(0, 1).all()
        assert picks["fom"].is_monotonic_decreasing
        assert (picks["diameter"] == DIAMETER).all()


@pytest.mark.slow
def test_threads_tiles_and_workers_do_not_show_in_the_picks(network_project):
    pick("one")
    pick("two", threads=2)
    pick("workers", workers=2)
    pick("tiles", tile=96)

    for name in ("two", "workers", "tiles"):
        for first, other in zip(picks_in("one"), picks_in(name), strict=True):
            assert len(first) == len(other) > 20
            order_a, order_b = (np.lexsort((t["y"], t["x"])) for t in (first, other))
            for column, allowed in (("x", 0.01), ("y", 0.01), ("fom", 1e-4)):
                a, b = first[column].to_numpy()[order_a], other[column].to_numpy()[order_b]
                np.testing.assert_allclose(a, b, atol=allowed, rtol=0)
    for path in Path("one/micrographs").iterdir():
        assert path.read_bytes() == Path("workers/micrographs", path.name).read_bytes()


@pytest.mark.slow
def test_the_threshold_is_that_of_the_model_unless_given(network_project):
    model_threshold = json.loads(Path("training/result.json").read_text())["threshold"]
    pick("own")
    pick("given", threshold=0.6)

    (own,), (given,) = (read_star(Path(n, "summary.star")).values() for n in ("own", "given"))
    assert own["cryopickThreshold"].unique() == pytest.approx([model_threshold])
    assert given["cryopickThreshold"].unique() == pytest.approx([0.6])
    for folder, threshold in (("own", model_threshold), ("given", 0.6)):
        for path in Path(folder, "micrographs").iterdir():
            picks = picks_of_file(path, "a.mrc")
            name = path.name.replace("autopick", "peaks")
            peaks = picks_of_file(Path(folder, "peaks/micrographs", name), "a.mrc")
            assert len(picks) == (peaks["fom"] >= threshold).sum()
    assert sum(map(len, picks_in("own"))) > 100


def quiet_model(path, *, seed=1):
    model = PickModel(
        network=PickNetwork(seed=seed), slope=1.0, offset=0.0, threshold=0.5, prior=0.5
    )
    write_model(path, model, {"diameter": 100.0})
    return path


def test_other_weights_are_another_job_and_another_tile_is_not(topaz_project):
    pick("pick", model=quiet_model(Path("a.npz")))
    lists = Path("pick/autopick.star")
    written = {p: p.stat().st_mtime_ns for p in Path("pick/micrographs").iterdir()}

    again = pick("pick", model=quiet_model(Path("same.npz")), tile=64)
    assert len(again.picked) == 4
    assert written == {p: p.stat().st_mtime_ns for p in Path("pick/micrographs").iterdir()}
    with pytest.raises(ProjectError, match="got `pick network` with model"):
        pick("pick", model=quiet_model(Path("b.npz"), seed=2))
    assert lists.exists()


def test_a_model_tells_the_scale_that_it_knows(topaz_project):
    quiet_model(Path("a.npz"))
    for diameter, is_other in ((100.0, False), (109.0, False), (125.0, True), (80.0, True)):
        parameters = NetworkParameters(diameter=diameter)
        assert make_network_picker(Path("a.npz"), parameters=parameters).is_other_size is is_other

    ended = run("pick", "network", TABLE, "--diameter", 125, "--model", "a.npz", "--out", "pick")
    assert ended.exit_code == 0
    assert "The model was trained with --diameter 100" in ended.stderr


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", b"\x80\x02}q\x00."])
def test_a_foreign_model_is_refused_before_anything_is_written(topaz_project, content):
    Path("foreign.sav").write_bytes(content)

    with pytest.raises(FormatError, match=r"foreign\.sav must .+; got .+\. .+\."):
        pick("pick", model="foreign.sav")
    assert not Path("pick").exists()
