"""What `class2d stable` refuses, in one sentence, before it works; and what a stack may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_world import CHOSEN, PIXEL, SIZE, make_views

from cryopick.class2d.stable_parameters import StableOptions
from cryopick.errors import CryopickError
from cryopick.io.eman_hdf_write import write_eman_stack
from cryopick.pipeline.class2d_source import open_source
from cryopick.pipeline.class2d_stable import classify_stably
from cryopick.pipeline.class2d_stable_parameters import StableRunParameters
from cryopick.pipeline.class2d_stable_source import (
    filament_angles,
    read_stable_particles,
    with_radius,
)
from cryopick.tables.eman_particles import parse_eman_ctf
from cryopick.tables.model import Particles


def noise_stack(path: Path, shape: tuple[int, int, int] = (130, SIZE, SIZE), **named: Any) -> Path:
    images = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    write_eman_stack(path, images, pixel_size=PIXEL, attributes=[named] * shape[0])
    return path


def refusal(particles: Particles, out: Path, *, diameter: float | None = 110.0,
            radius: float | None = None, memory: float = 0, restart: int = -1,
            **changes: Any) -> str:  # fmt: skip
    with pytest.raises(CryopickError) as caught:
        classify_stably(
            particles, out, options=StableOptions(**(CHOSEN | {"ctf": "none"} | changes)),
            compute=StableRunParameters(threads=1, memory=memory, restart=restart),
            diameter=diameter, radius=radius,
        )  # fmt: skip
    assert not (out / "job.json").exists()
    return str(caught.value)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Particles:
    return read_stable_particles(noise_stack(tmp_path_factory.mktemp("in") / "s.hdf"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"diameter": None}, "diameter must be given, or --radius in pixels; got neither."),
        ({"radius": 11.0}, "diameter must be given, or --radius in pixels; got both."),
        ({"diameter": 400.0}, "diameter must be at most the box, 160 A; got 400 A."),
        ({"diameter": None, "radius": 20.0}, "radius must be at most half the box, 16 px; got 20"),
        ({"ctf": "flip"}, "must have a column rlnDefocusU"),
        ({"filament_width": 6}, "must have a column rlnAnglePsiPrior (segment_angle in HDF"),
        ({"img_per_grp": 80}, "must hold at least 160 particles, two classes; got 130."),
        ({"memory": 0.1}, "memory must be at least"),
        ({"restart": 2}, "restart must be a main iteration that is finished (0 to 0); got 2."),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    stack: Particles, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    assert sentence in refusal(stack, tmp_path / "out", **changes)


def test_images_that_are_not_square_are_refused(tmp_path: Path) -> None:
    path = noise_stack(tmp_path / "wide.hdf", (130, 30, 32))
    said = refusal(read_stable_particles(path), tmp_path / "out")
    assert "wide.hdf must hold square images; got 32 x 30 px." in said


def test_a_database_is_refused_with_what_to_do() -> None:
    with pytest.raises(CryopickError, match=r"got a BDB.*e2proc2d\.py IN OUT\.hdf"):
        read_stable_particles(Path("bdb:folder#stack"))


def test_a_pixel_size_that_nobody_has_filled_in_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "one.hdf"
    write_eman_stack(path, np.eye(8, dtype=np.float32)[None], pixel_size=1.0)
    with pytest.raises(CryopickError, match="must say the pixel size of its images; got apix_x 1"):
        read_stable_particles(path)
    assert read_stable_particles(path, pixel_size=2.5).optics["pixel_size"].tolist() == [2.5]


def test_sphire_s_astigmatism_is_that_of_its_formula() -> None:
    """Defocus at azimuth a is d - A / 2 sin 2 (a + t)."""
    for text in ("E1.5 0.1 25 0 10 300 2.7 1.06 0 0 0 0", "E1.5 -0.2 70 0 10 300 2.7 1.06 0 0"):
        ctf = parse_eman_ctf(text)
        assert ctf is not None
        d, astigmatism, turn = (float(word) for word in text[1:].split()[:3])
        a = np.deg2rad(np.arange(0, 180, 7.0))
        theirs = d - astigmatism / 2 * np.sin(2 * (a + np.deg2rad(turn)))
        axis = np.deg2rad(ctf.defocus_angle)
        mean, half = (ctf.defocus_u + ctf.defocus_v) / 2, (ctf.defocus_u - ctf.defocus_v) / 2
        np.testing.assert_allclose(mean + half * np.cos(2 * (a - axis)), 1e4 * theirs, atol=0.01)
        assert ctf.defocus_u >= ctf.defocus_v
    assert parse_eman_ctf("O-1.5 10 1") is None


def test_filaments_take_their_angles_from_both_kinds_of_files(tmp_path: Path) -> None:
    angles = np.linspace(-80, 80, 130)
    images = np.random.default_rng(1).standard_normal((130, SIZE, SIZE))
    attributes = [{"segment_angle": float(a), "ctf_applied": 1} for a in angles]
    write_eman_stack(tmp_path / "f.hdf", images, pixel_size=PIXEL, attributes=attributes)
    particles = read_stable_particles(tmp_path / "f.hdf")
    assert particles.optics["is_phase_flipped"].tolist() == [1]
    options = StableOptions(**CHOSEN | {"filament_width": 8.0, "ctf": "none"})
    parameters = with_radius(options, diameter=110.0, radius=None, pixel_size=PIXEL, box_size=SIZE)
    source = open_source(particles, corrects_ctf=False)
    found = filament_angles(source, parameters)
    assert found is not None
    np.testing.assert_allclose(found, angles, atol=1e-4)
    np.testing.assert_allclose(particles.rows["rlnAnglePsiPrior"], -angles, atol=1e-4)
    some = np.array([129, 3, 60, 3])
    np.testing.assert_allclose(source.read(some).numpy(), images[some], rtol=1e-6)
    source.images.close()


def test_only_noise_is_in_no_class_and_a_bad_image_is_left_out(tmp_path: Path) -> None:
    particles = make_views(tmp_path / "in", n=130, n_noise=130)
    with (tmp_path / "in" / "stack.mrcs").open("r+b") as file:
        file.seek(1024 + 5 * 4 * SIZE**2)
        file.write(np.full(SIZE**2, np.nan, np.float32).tobytes())
    said: list[str] = []
    values = classify_stably(
        particles, tmp_path / "out",
        options=StableOptions(**CHOSEN | {"init_iter": 1, "maxit": 4, "stab_ali": 2}),
        compute=StableRunParameters(threads=1), diameter=110.0, tell=said.append,
    ).values  # fmt: skip
    assert values["n_classes"] == 0
    assert values["averages"] is None
    assert values["n_left_out"] == 1
    assert any("NaN or infinity" in sentence for sentence in said)
    left = np.loadtxt(tmp_path / "out" / "not_processed_images.txt", dtype=int)
    assert left.tolist() == list(range(130))
    assert "No class was stable" in (tmp_path / "out" / "report.html").read_text()
