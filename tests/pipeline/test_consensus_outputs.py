"""What a consensus leaves beside its picks: particles, Xmipp's tables, the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cryopick.errors import ParameterError
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.mrc import read_mrc
from cryopick.picking.consensus_parameters import ConsensusParameters
from cryopick.pipeline.consensus import join_sets
from cryopick.pipeline.consensus_output_parameters import ConsensusOutputParameters
from cryopick.pipeline.evaluate import read_truth
from cryopick.report.consensus_charts import estimated_curve
from cryopick.tables.relion import read_particles, read_picks, write_picks_file
from cryopick.tables.xmipp import read_xmd_particles
from cryopick.tables.xmipp_pos import read_xmd_picks

pytest_plugins = ("topaz_world",)

VOTES = ConsensusParameters(diameter=125.0, method="votes", quorum=2)


@pytest.fixture
def halves(topaz_project):
    """The left and the lower particles of each field: only those left and below are shared."""
    truth = read_truth(Path("truth.json")).rows
    is_in = {"left": truth["x"] < 350, "lower": truth["y"] > 200}
    for name, mask in is_in.items():
        Path(name).mkdir()
        for micrograph in truth["micrograph"].unique():
            own = truth.loc[(truth["micrograph"] == micrograph) & mask, ["x", "y"]]
            write_picks_file(Path(name) / f"{Path(micrograph).stem}_autopick.star", own)
    return truth.assign(**is_in)


def join(out, *, parameters=VOTES, **given):
    return join_sets(
        [Path("left"), Path("lower")],
        ["micrographs_ctf.star"],
        Path(out),
        parameters=parameters,
        compute=ComputeParameters(workers=1, threads=1),
        **given,
    )


def test_particles_carry_their_score_to_relion_and_to_xmipp(halves):
    output = ConsensusOutputParameters(particle_size=32)
    result = join("out", output=output)

    made = read_particles(Path("out/particles/particles.star"))
    assert made.rows["fom"].eq(2).all()  # both votes
    assert made.optics["box_size"].eq(32).all()
    assert len(made) + result.particles.n_edge == len(read_picks(Path("out")))
    xmd = read_xmd_particles(Path("out/particles/particles.xmd"))
    assert xmd.rows["zScoreDeepLearning1"].eq(2).all()
    assert json.loads(Path("out/consensus.json").read_text())["particles"]["image_size"] == 32


def test_particles_are_centred_and_white(halves):
    join("out", output=ConsensusOutputParameters())

    stacks = [read_mrc(p) for p in sorted(Path("out/particles").rglob("*.mrcs"))]
    mean = np.concatenate(stacks).mean(0)
    y, x = np.indices(mean.shape) - len(mean) // 2
    is_inside = np.hypot(y, x) < 16  # px: the shell has a radius of 62.5 A
    assert mean[is_inside].mean() > mean[~is_inside].mean() + 0.1
    light = np.clip(mean - np.median(mean[~is_inside]), 0, None) * (np.hypot(y, x) < 20)
    assert abs((light * y).sum() / light.sum()) < 1.5
    assert abs((light * x).sum() / light.sum()) < 1.5


def test_particles_that_are_white_in_the_micrographs_are_not_inverted(halves):
    join("black", output=ConsensusOutputParameters())
    white = replace(VOTES, white_particles=True)
    join("white", parameters=white, output=ConsensusOutputParameters())

    stacks = [sorted(Path(f, "particles").rglob("*.mrcs")) for f in ("black", "white")]
    for one, other in zip(*stacks, strict=True):
        np.testing.assert_allclose(read_mrc(one), -read_mrc(other), atol=1e-4)
    with pytest.raises(ParameterError, match="white_particles must be given with"):
        join("none", parameters=white, output=ConsensusOutputParameters(particles=False))
    with pytest.raises(ParameterError, match="particle_size must be left out with --no-part"):
        ConsensusOutputParameters(particles=False, particle_size=64)


def test_xmipp_gets_every_candidate_with_those_left_out_disabled(halves):
    join("out")

    text = Path("out/coordinates.xmd").read_text()
    assert "zScoreDeepLearning1" in text
    enabled = read_xmd_picks(Path("out/coordinates.xmd"))  # leaves out what is disabled
    picks = read_picks(Path("out")).rows
    assert len(enabled.rows) == len(picks)
    assert enabled.rows["fom"].min() == 2
    assert enabled.rows.attrs["n_disabled"] == (halves["left"] ^ halves["lower"]).sum()


def test_another_threshold_is_written_without_beginning_again(halves):
    join("out", output=ConsensusOutputParameters(particle_size=32))
    both = read_picks(Path("out")).rows

    join(
        "out",
        parameters=replace(VOTES, quorum=1),
        output=ConsensusOutputParameters(particle_size=32),
    )
    any_of_them = read_picks(Path("out")).rows
    assert len(any_of_them) == (halves["left"] | halves["lower"]).sum() > len(both)


def test_what_is_left_of_an_earlier_start_fits_the_picks(halves):
    tables = [Path("out/particles", f"particles.{end}") for end in ("star", "xmd")]
    join("out", output=ConsensusOutputParameters())
    join("out", output=ConsensusOutputParameters(particle_size=32))
    assert read_particles(tables[0]).optics["box_size"].eq(32).all()
    assert tables[1].exists()

    any_of_them = replace(VOTES, quorum=1)
    join("out", parameters=any_of_them, output=ConsensusOutputParameters(xmd=False))
    made = read_particles(tables[0])
    assert made.rows["fom"].min() == 1
    assert not tables[1].exists()
    assert not Path("out/coordinates.xmd").exists()

    join("out", output=ConsensusOutputParameters(particles=False))
    assert not tables[0].exists()
    join("out", parameters=any_of_them, output=ConsensusOutputParameters())
    assert read_particles(tables[0]).rows["fom"].tolist() == made.rows["fom"].tolist()


def test_the_report_shows_pickers_and_galleries(halves):
    join("out")

    page = Path("out/report.html").read_text()
    for words in ("Agreement of the pickers", "Kept, the best", "Rejected, the worst", "left"):
        assert words in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_particles_are_not_enlarged(halves):
    with pytest.raises(ParameterError, match="particle_size must be at most the box"):
        join("out", output=ConsensusOutputParameters(particle_size=400))
    assert not Path("out").exists()


def test_the_expected_curve_is_that_of_labels_drawn_with_the_probabilities():
    random = np.random.default_rng(3)
    probability = random.beta(0.4, 0.4, 40_000)
    is_true = random.random(40_000) < probability

    threshold, precision, recall = estimated_curve(probability, n_unseen=2_000.0)

    kept = probability >= threshold[20_000]
    assert precision[20_000] == pytest.approx(is_true[kept].mean(), abs=0.01)
    assert recall[20_000] == pytest.approx(is_true[kept].sum() / (is_true.sum() + 2_000), abs=0.01)
