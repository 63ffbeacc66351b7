"""The CTF against its closed form, against RELION, and against images with RELION's CTF."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cryopick.ctf.apply import apply_ctf
from cryopick.ctf.evaluate import evaluate_ctf, evaluate_ctf_profile
from cryopick.errors import ParameterError, ShapeError
from cryopick.io.mrc import read_mrc, write_mrc
from cryopick.physics import electron_wavelength
from cryopick.tables.model import Particles
from cryopick.tables.relion import read_particles, write_particles

LENS = {"voltage": 300.0, "spherical_aberration": 2.7, "amplitude_contrast": 0.1}
ROUND = {"defocus_u": 15000.0, "defocus_v": 15000.0, "defocus_angle": 0.0}


def zeros(defocus, count, *, voltage=300.0, cs=2.7, contrast=0.1, phase_shift=0.0):
    """Frequencies at which gamma is a multiple of pi: a quadratic equation in k^2."""
    wavelength = electron_wavelength(voltage)
    a = math.pi / 2 * cs * 1e7 * wavelength**3
    b = math.pi * wavelength * defocus
    offset = math.radians(phase_shift) + math.asin(contrast)
    c = np.arange(1, count + 1) * math.pi - offset
    return np.sqrt((b - np.sqrt(b * b - 4 * a * c)) / (2 * a))


@pytest.mark.parametrize("voltage", [120.0, 200.0, 300.0])
@pytest.mark.parametrize("phase_shift", [0.0, 70.0])
def test_the_ctf_is_zero_where_the_closed_form_says(voltage, phase_shift):
    at = zeros(18000.0, 8, voltage=voltage, cs=2.0, phase_shift=phase_shift)

    ctf = evaluate_ctf_profile(
        torch.from_numpy(at),
        defocus=18000.0,
        voltage=voltage,
        spherical_aberration=2.0,
        amplitude_contrast=0.1,
        phase_shift=phase_shift,
    )[0]

    torch.testing.assert_close(ctf, torch.zeros(8, dtype=torch.float64), atol=1e-9, rtol=0)


def test_underfocus_is_positive_up_to_the_first_zero_and_negative_after_it():
    first, second = zeros(18000.0, 2)
    frequency = torch.linspace(0, second * 0.999, 500, dtype=torch.float64)

    ctf = evaluate_ctf_profile(frequency, defocus=18000.0, **LENS)[0]

    assert (ctf[frequency < first] > 0).all()
    assert (ctf[frequency > first] < 0).all()
    assert ctf[0].item() == pytest.approx(0.1)


@pytest.mark.parametrize(("shape", "axis"), [((64, 96), "x"), ((96, 64), "y"), ((65, 63), "x")])
def test_an_axis_of_the_image_has_the_profile_of_its_defocus(shape, axis):
    angle = 0.0 if axis == "x" else 90.0

    ctf = evaluate_ctf(
        shape, pixel_size=2.0, defocus_u=21000.0, defocus_v=17000.0, defocus_angle=angle, **LENS
    )[0]

    along_x, along_y = ctf[0, : shape[1] // 2], ctf[: shape[0] // 2, 0]
    along_u, along_v = (along_x, along_y) if axis == "x" else (along_y, along_x)
    for line, defocus in ((along_u, 21000.0), (along_v, 17000.0)):
        length = shape[1] if line is along_x else shape[0]
        frequency = torch.arange(len(line)) / (2.0 * length)
        expected = evaluate_ctf_profile(frequency, defocus=defocus, **LENS)[0]
        torch.testing.assert_close(line, expected, atol=1e-4, rtol=0)


def test_the_defocus_angle_turns_from_x_towards_higher_rows():
    ctf = evaluate_ctf(
        (64, 64),
        pixel_size=2.0,
        defocus_u=21000.0,
        defocus_v=17000.0,
        defocus_angle=45.0,
        dtype=torch.float64,
        **LENS,
    )[0]

    steps = torch.arange(20)
    frequency = steps.double() * math.sqrt(2) / 128
    towards = evaluate_ctf_profile(frequency, defocus=21000.0, **LENS)[0]
    away = evaluate_ctf_profile(frequency, defocus=17000.0, **LENS)[0]
    torch.testing.assert_close(ctf[steps, steps], towards)
    torch.testing.assert_close(ctf[-steps, steps], away)


@pytest.mark.parametrize("shape", [(16, 16), (16, 15), (15, 18)])
def test_the_half_is_the_first_columns_of_the_whole(shape):
    values = dict(ROUND, defocus_v=12000.0, defocus_angle=30.0, bfactor=80.0)

    half = evaluate_ctf(shape, pixel_size=3.0, **values, **LENS)
    whole = evaluate_ctf(shape, pixel_size=3.0, half=False, **values, **LENS)

    assert whole.shape == (1, *shape)
    torch.testing.assert_close(half, whole[:, :, : shape[1] // 2 + 1])


def test_a_batch_is_its_images_one_by_one():
    u, v = torch.tensor([1e4, 2e4, 3e4]), torch.tensor([0.9e4, 1.9e4, 2.5e4])
    scale, bfactor = torch.tensor([1.0, 0.5, 0.7]), torch.tensor([0.0, 50.0, 200.0])

    batch = evaluate_ctf(
        (12, 14),
        pixel_size=2.5,
        defocus_u=u,
        defocus_v=v,
        defocus_angle=20.0,
        scale=scale,
        bfactor=bfactor,
        **LENS,
    )

    for i in range(3):
        single = evaluate_ctf(
            (12, 14),
            pixel_size=2.5,
            defocus_u=float(u[i]),
            defocus_v=float(v[i]),
            defocus_angle=20.0,
            scale=float(scale[i]),
            bfactor=float(bfactor[i]),
            **LENS,
        )
        torch.testing.assert_close(batch[i], single[0])


def test_the_envelope_falls_as_its_b_factor_says():
    values = dict(ROUND, defocus_angle=10.0)
    bare = evaluate_ctf((32, 32), pixel_size=2.0, **values, **LENS)
    damped = evaluate_ctf((32, 32), pixel_size=2.0, bfactor=150.0, **values, **LENS)

    nyquist = math.exp(-150 / 4 * (1 / 4) ** 2)
    assert (damped[0, 0, 16] / bare[0, 0, 16]).item() == pytest.approx(nyquist, rel=1e-5)


def test_no_images_are_no_ctfs():
    none = torch.zeros(0)

    ctf = evaluate_ctf(
        (8, 8), pixel_size=1.0, defocus_u=none, defocus_v=none, defocus_angle=none, **LENS
    )

    assert ctf.shape == (0, 8, 5)


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ShapeError, match=r"one for each image; got lengths 2, 3, 1"):
        evaluate_ctf(
            (8, 8),
            pixel_size=1.0,
            defocus_u=torch.ones(2),
            defocus_v=torch.ones(3),
            defocus_angle=0.0,
            **LENS,
        )


@pytest.mark.parametrize("pixel_size", [0.0, -1.0, math.nan])
def test_a_pixel_size_that_is_none_is_refused(pixel_size):
    with pytest.raises(ParameterError, match="pixel_size must be above 0"):
        evaluate_ctf((8, 8), pixel_size=pixel_size, **ROUND, **LENS)


@pytest.mark.relion
@pytest.mark.parametrize(("angle", "phase_shift"), [(25.0, 0.0), (140.0, 40.0)])
def test_the_ctf_is_that_of_relion(tmp_path, angle, phase_shift):
    if not shutil.which("relion_ctf_toolbox"):
        pytest.skip("no relion_ctf_toolbox: install the Debian package relion")
    options = "--angpix 2.5 --box 96 --kV 200 --Q0 0.07 --Cs 1.4 --defU 22000 --defV 19000"
    command = ["relion_ctf_toolbox", "--simulate", "ctf.mrc", *options.split()]
    command += ["--defAng", str(angle), "--phase_shift", str(phase_shift)]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    ctf = evaluate_ctf(
        (96, 96),
        pixel_size=2.5,
        defocus_u=22000.0,
        defocus_v=19000.0,
        defocus_angle=angle,
        voltage=200.0,
        spherical_aberration=1.4,
        amplitude_contrast=0.07,
        phase_shift=phase_shift,
        half=False,
    )[0]

    theirs = np.fft.ifftshift(read_mrc(tmp_path / "ctf.mrc"))
    # RELION rounds the constants of its wavelength: 6e-6 of up to 200 rad; and its picture has
    # the negative Nyquist frequency, but the CTF it multiplies images by the positive one
    away = np.abs(ctf.numpy() - theirs)
    assert np.delete(np.delete(away, 48, 0), 48, 1).max() < 3e-3


@pytest.mark.relion
def test_images_multiplied_by_the_ctf_are_those_of_relion(tmp_path):
    if not shutil.which("relion_ctf_toolbox"):
        pytest.skip("no relion_ctf_toolbox: install the Debian package relion")
    images = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(5))
    write_mrc(tmp_path / "noise.mrcs", images.numpy(), pixel_size=4.0)
    optics = {"optics_group": [1], "pixel_size": [4.0], "box_size": [32], "image_dimensions": [2]}
    optics |= {name: [value] for name, value in LENS.items()}
    rows = {"image": "noise.mrcs", "image_index": [0, 1, 2], "optics_group": 1}
    rows |= {"defocus_u": 20000.0, "defocus_v": 17000.0, "defocus_angle": 30.0}
    table = Particles(rows=pd.DataFrame(rows), optics=pd.DataFrame(optics))
    write_particles(tmp_path / "noise.star", table)
    command = ["relion_ctf_toolbox", "--i", "noise.star", "--o", "seen"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    ctf = evaluate_ctf(
        (32, 32),
        pixel_size=4.0,
        defocus_u=20000.0,
        defocus_v=17000.0,
        defocus_angle=30.0,
        **LENS,
    )

    theirs = torch.from_numpy(read_mrc(tmp_path / "noise_seen.mrcs"))
    torch.testing.assert_close(apply_ctf(images, ctf), theirs, atol=2e-3, rtol=0)


@pytest.mark.data
def test_white_images_of_relion_agree_with_the_ctf_and_not_with_its_negative(test_data: Path):
    stack = test_data / "stacks" / "groel_es"
    particles = read_particles(stack / "particles.star").rows
    images = torch.from_numpy(read_mrc(stack / "particles.mrcs", dtype=np.float32))
    clean = torch.from_numpy(np.load(stack / "clean.npy").astype(np.float32))
    good = np.flatnonzero(~np.load(stack / "truth.npz")["junk"])[:300]

    def score(sign: float) -> float:
        column = {
            n: torch.tensor(particles[n].to_numpy()[good] * sign)
            for n in ("defocus_u", "defocus_v")
        }
        angle = torch.tensor(particles["defocus_angle"].to_numpy()[good])
        ctf = evaluate_ctf((64, 64), pixel_size=4.0, defocus_angle=angle, **column, **LENS)
        seen = apply_ctf(clean[good], ctf).flatten(1)
        return float(torch.cosine_similarity(seen, images[good].flatten(1)).mean())

    assert score(1) > 0.1
    assert score(1) > score(-1) + 0.1
