"""Accuracy, speed and trust of ``cryopick ctf estimate``.

Simulated fields of several phantoms (2048 px at 1.5 A, default noise; also weak contrast at half
the dose, carbon with ice, a phase plate), with white noise added to tell where the fit fails and
whether it says so; real apoferritin; fields without rings. Nothing is asserted.

    python benchmarks/ctf_accuracy.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cryopick.ctf.estimate import CtfEstimate, estimate_ctf
from cryopick.ctf.estimate_parameters import CtfParameters
from cryopick.io.micrograph import read_micrograph
from cryopick.pipeline.simulate_species import load_models
from cryopick.simulation.micrographs import simulate_micrograph
from cryopick.simulation.parameters import (
    MicrographSimulationParameters,
    MicroscopeParameters,
    SpecimenParameters,
)
from cryopick.tables.relion import read_micrographs

PIXEL_SIZE = 1.5  # A
_LENS = {"voltage": 300.0, "spherical_aberration": 2.7}
_EMPTY = ("empty_no_ice", "empty_ice_no_particles_but_vitreous_ice")
_NOISE = (2.0, 4.0, 6.0, 9.0)  # standard deviations of a field, added as white noise


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One kind of simulated session."""

    name: str
    phantoms: str
    microscope: MicroscopeParameters
    specimen: MicrographSimulationParameters


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Errors of one fit."""

    defocus: float  # A, of the mean
    astigmatism: float  # A
    angle: float  # deg; NaN where the astigmatism is below 500 A
    phase_shift: float  # deg
    seconds: float  # of CPU
    found: CtfEstimate


def settings(count: int) -> Iterator[Setting]:
    def fields(**given: float) -> MicrographSimulationParameters:
        return MicrographSimulationParameters(number=count, **given)  # type: ignore[arg-type]

    strong = {"astigmatism": 1000.0}
    low = MicroscopeParameters(min_defocus=6000, max_defocus=12000, **strong)
    middle = MicroscopeParameters(min_defocus=12000, max_defocus=25000, **strong)
    high = MicroscopeParameters(min_defocus=25000, max_defocus=45000, **strong)
    plate = MicroscopeParameters(
        min_defocus=3000, max_defocus=10000, phase_shift=90.0, astigmatism=500.0
    )
    default = MicroscopeParameters(**strong)
    yield Setting(name="0.6-1.2 um", phantoms="barrel", microscope=low, specimen=fields())
    yield Setting(name="1.2-2.5 um", phantoms="asymmetric", microscope=middle, specimen=fields())
    yield Setting(name="2.5-4.5 um", phantoms="shell", microscope=high, specimen=fields())
    weak = fields(contrast=0.5, dose=20.0)
    yield Setting(name="weak", phantoms="small", microscope=default, specimen=weak)
    carbon = fields(carbon_fraction=1.0, ice_blobs=3.0)
    yield Setting(name="carbon, ice", phantoms="rod", microscope=default, specimen=carbon)
    yield Setting(name="phase plate", phantoms="tetramer", microscope=plate, specimen=fields())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    beside = Path(__file__).parents[2] / "shared" / "data"
    named = os.environ.get("CRYOPICK_TEST_DATA", str(beside))
    options.add_argument("--data", type=Path, default=Path(named), help="Folder of real data.")
    options.add_argument("--fields", type=int, default=8, help="Simulated fields of each kind.")
    options.add_argument("--noise-fields", type=int, default=20)
    given = options.parse_args()
    torch.set_num_threads(1)
    noisy = simulated(given.fields)
    print_noisy(noisy)
    print_noise(given.noise_fields)
    if given.data.is_dir():
        print_apoferritin(given.data / "apoferritin")
        print_empty(given.data / "junk_micrographs")


def simulated(count: int) -> list[tuple[float, Outcome]]:
    """Print the errors of every kind of session; return those with noise added."""
    print(
        f"Simulated, 2048 px, {count} fields each. Errors: median / 90 % / worst\n"
        f"{'':14}{'defocus (A)':>20}{'astigmatism (A)':>22}{'angle (deg)':>20}"
        f"{'phase (deg)':>18}{'to (A)':>8}{'trusted':>9}{'CPU-s':>7}"
    )
    noisy: list[tuple[float, Outcome]] = []
    for setting in settings(count):
        models = load_models(SpecimenParameters(phantoms=setting.phantoms))
        outcomes = []
        for index in range(count):
            field = simulate_micrograph(
                models,
                index=index,
                specimen=SpecimenParameters(phantoms=setting.phantoms),
                microscope=setting.microscope,
                parameters=setting.specimen,
            )
            truth = (field.defocus.defocus_u, field.defocus.defocus_v, field.defocus.defocus_angle)
            outcomes.append(fit(field.image, truth, setting.microscope.phase_shift))
            generator = torch.Generator().manual_seed(index)
            for factor in _NOISE if not setting.microscope.phase_shift else ():
                white = torch.randn(field.image.shape, generator=generator)
                spoilt = field.image + factor * field.image.std() * white
                noisy.append((factor, fit(spoilt, truth, 0.0)))
        print_row(setting, outcomes)
    return noisy


def fit(image: torch.Tensor, truth: tuple[float, float, float], phase_shift: float) -> Outcome:
    start = time.process_time()
    found = estimate_ctf(
        image,
        pixel_size=PIXEL_SIZE,
        amplitude_contrast=0.1,
        parameters=CtfParameters(phase_shift=phase_shift != 0),
        **_LENS,
    )
    seconds = time.process_time() - start
    u, v, angle = truth
    turn = (found.ctf.defocus_angle - angle + 90) % 180 - 90
    return Outcome(
        defocus=(found.ctf.defocus_u + found.ctf.defocus_v - u - v) / 2,
        astigmatism=found.ctf.defocus_u - found.ctf.defocus_v - (u - v),
        angle=turn if u - v > 500 else np.nan,
        phase_shift=found.ctf.phase_shift - phase_shift,
        seconds=seconds,
        found=found,
    )


def print_row(setting: Setting, outcomes: list[Outcome]) -> None:
    phase = "-"
    if setting.microscope.phase_shift:
        phase = _spread([o.phase_shift for o in outcomes], 1)
    print(
        f"{setting.name:14}{_spread([o.defocus for o in outcomes]):>20}"
        f"{_spread([o.astigmatism for o in outcomes]):>22}"
        f"{_spread([o.angle for o in outcomes], 1):>20}{phase:>18}"
        f"{np.median([o.found.max_resolution for o in outcomes]):8.1f}"
        f"{sum(o.found.is_trusted for o in outcomes):>6}/{len(outcomes)}"
        f"{np.median([o.seconds for o in outcomes]):7.2f}"
    )


def _spread(values: list[float], digits: int = 0) -> str:
    sizes = np.abs([v for v in values if np.isfinite(v)])
    if not len(sizes):
        return "-"
    return " / ".join(f"{v:.{digits}f}" for v in (*np.quantile(sizes, (0.5, 0.9)), sizes.max()))


def print_noisy(noisy: list[tuple[float, Outcome]]) -> None:
    print(
        "\nThe same with white noise added (factor of the field's standard deviation)\n"
        "noise   fields  within 300 A  trusted  trusted and wrong  worst trusted (A)  score"
    )
    for factor in _NOISE:
        part = [o for f, o in noisy if f == factor]
        trusted = [o for o in part if o.found.is_trusted]
        worst = max((abs(o.defocus) for o in trusted), default=0.0)
        print(
            f"{factor:5.1f}{len(part):9}{sum(abs(o.defocus) < 300 for o in part):14}"
            f"{len(trusted):9}{sum(abs(o.defocus) >= 300 for o in trusted):19}{worst:19.0f}"
            f"{np.median([o.found.score for o in part]):7.1f}"
        )


def print_noise(count: int) -> None:
    found = []
    for seed in range(count):
        white = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(seed))
        found.append(_estimate(white, 0.1))
    print_untrusted("white noise, 1024 px", found)


def print_apoferritin(folder: Path) -> None:
    print("\nApoferritin, 1240 x 1200 px: defocus u, v, angle, FOM, to (A), trusted, error, CPU-s")
    for name in read_micrographs(folder / "micrographs.star").rows["micrograph"]:
        micrograph = torch.from_numpy(read_micrograph(folder / name))
        start = time.process_time()
        found = _estimate(micrograph, 0.07)
        seconds = time.process_time() - start
        ctf = found.ctf
        print(
            f"{Path(name).name:22}{ctf.defocus_u:9.0f}{ctf.defocus_v:9.0f}"
            f"{ctf.defocus_angle:8.1f}{found.figure_of_merit:7.2f}{found.max_resolution:6.1f}"
            f"{found.is_trusted!s:>7}{found.defocus_error:6.0f}{seconds:7.2f}"
        )


def print_empty(folder: Path) -> None:
    for name in _EMPTY:
        for pixel_size in (PIXEL_SIZE, 2 * PIXEL_SIZE):
            found = [
                _estimate(torch.from_numpy(read_micrograph(path)), 0.1, pixel_size)
                for path in sorted((folder / name).glob("*.png"))
            ]
            print_untrusted(f"{name} as {pixel_size:g} A/px", found)


def _estimate(
    micrograph: torch.Tensor, amplitude_contrast: float, pixel_size: float = PIXEL_SIZE
) -> CtfEstimate:
    return estimate_ctf(
        micrograph, pixel_size=pixel_size, amplitude_contrast=amplitude_contrast, **_LENS
    )


def print_untrusted(name: str, found: list[CtfEstimate]) -> None:
    foms = [e.figure_of_merit for e in found]
    scores = ", ".join(f"{s:.1f}" for s in sorted(e.score for e in found)[-5:])
    print(
        f"\n{name}: {sum(e.is_trusted for e in found)} of {len(found)} trusted; figure of merit "
        f"{min(foms):.2f} to {max(foms):.2f}; highest scores {scores}"
    )


if __name__ == "__main__":
    main()
