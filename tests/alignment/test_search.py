"""The search against a slow, obvious calculation and against physics."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cryopick.alignment.references import power_harmonics, prepare_references
from cryopick.alignment.refine import refine_poses
from cryopick.alignment.rings import RingBasis, change_basis, make_ring_basis
from cryopick.alignment.sampling import make_ring_sampler
from cryopick.alignment.search import Candidates, Workspace, make_rotations, search, shift_tile
from cryopick.alignment.sums import PosedImages, RingSums, add_posed, turn_phases
from cryopick.alignment.transform import transform_images
from cryopick.ctf.rings import evaluate_ctf_rings

BOX, PIXEL, DIAMETER, EDGE = 48, 4.0, 130.0, 20.0
LENS = [18000.0, 14000.0, 35.0, 0.0, 0.0, 1.0, 300.0, 2.7, 0.1]


def blobs(n: int, *, seed: int = 0) -> Tensor:
    """Sums of Gaussians well inside the mask: smooth, asymmetric, band-limited."""
    generator = torch.Generator().manual_seed(seed)
    axis = torch.arange(BOX) - BOX // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    images = torch.zeros(n, BOX, BOX)
    for image in images:
        for cx, cy, a in torch.randn(7, 3, generator=generator).tolist():
            image += a * torch.exp(-((x - 4 * cx) ** 2 + (y - 4 * cy) ** 2) / (2 * 2.0**2))
    return images


def basis_and_sampler(resolution: float = 14.0) -> tuple[RingBasis, object]:
    basis = make_ring_basis(resolution=resolution, diameter=DIAMETER + 2 * EDGE, box=BOX * PIXEL)
    sampler = make_ring_sampler(
        basis, size=BOX, pixel_size=PIXEL, mask_diameter=DIAMETER, mask_edge=EDGE
    )
    return basis, sampler


def half_rings(images: Tensor) -> tuple[RingBasis, Tensor]:
    basis, sampler = basis_and_sampler()
    real, imaginary = sampler.sample(images)
    return basis, torch.complex(real, imaginary)  # (H, R, n)


def weighted(images: Tensor, *, lens: bool = True, noise: float = 1.0 / BOX**4):
    basis, rings = half_rings(images)
    ctf = torch.ones(basis.n_angles, basis.n_rings, 1)
    if lens:
        ctf = evaluate_ctf_rings(
            torch.tensor([LENS], dtype=torch.float64),
            frequencies=basis.frequencies,
            angles=basis.angles,
        )
    weight = (basis.weights / noise)[:, None]
    image = rings * ctf * weight
    power = power_harmonics((ctf**2 * weight).permute(1, 2, 0), basis)
    return basis, rings, ctf, weight, image, power.expand(-1, rings.shape[2], -1)


def references_of(images: Tensor):
    basis, rings = half_rings(images)
    return prepare_references(basis.to_harmonics(rings.permute(2, 1, 0)), basis)


def test_half_rings_are_the_fourier_transform() -> None:
    image = blobs(1)
    basis, rings = half_rings(image)
    axis = (torch.arange(BOX) - BOX // 2).double() * PIXEL
    for h, r in ((0, 0), (5, 3), (11, 8)):
        k, angle = float(basis.frequencies[r]), float(basis.angles[h])
        kernel = torch.exp(
            -2j * math.pi * k * (axis * math.cos(angle) + axis[:, None] * math.sin(angle))
        )
        expected = (image[0].double() * kernel).mean()
        assert abs(complex(rings[h, r, 0]) - complex(expected)) < 1e-2 * abs(
            complex(rings[0, 0, 0])
        )


def test_harmonics_and_half_rings_are_inverse() -> None:
    basis, rings = half_rings(blobs(3))
    rings = rings.permute(2, 1, 0)
    back = basis.to_half_rings(basis.to_harmonics(rings))
    assert float((back - rings).abs().max()) < 2e-3 * float(rings.abs().max())


def test_turning_the_image_is_a_phase_of_its_harmonics() -> None:
    image, psi = blobs(1), torch.tensor([33.0])
    zero = torch.zeros(1)
    turned = transform_images(image, psi=psi, shift_x=zero, shift_y=zero)
    basis, rings = half_rings(torch.cat([image, turned]))
    before, after = basis.to_harmonics(rings.permute(2, 1, 0))
    expected = before * torch.exp(-1j * basis.orders * math.radians(33.0))
    assert float((after - expected).abs().max()) < 0.01 * float(before.abs().max())


def test_a_basis_cut_and_filled_keeps_what_both_have() -> None:
    basis, rings = half_rings(blobs(2))
    coarse, _ = basis_and_sampler(30.0)
    harmonics = basis.to_harmonics(rings.permute(2, 1, 0))
    cut = change_basis(harmonics, basis, coarse)
    again = change_basis(change_basis(cut, coarse, basis), basis, coarse)
    assert torch.equal(cut, again)
    m = int(coarse.orders[3])
    place = int((basis.orders == m).nonzero())
    assert torch.equal(cut[:, 2, 3], harmonics[:, 2, place])


def test_the_search_equals_the_plain_sum_over_rings() -> None:
    noise = torch.randn(3, BOX, BOX, generator=torch.Generator().manual_seed(3))
    images, averages = blobs(3, seed=1) + noise * 0.1, blobs(2, seed=2)
    basis, rings, ctf, weight, image, power = weighted(images)
    references = references_of(averages)
    rotations = make_rotations(basis, step=360 / 40)
    shifts = torch.tensor([[0.0, 0.0], [6.0, -3.0], [0.0, 8.0]])
    workspace = Workspace()
    tile = shift_tile(
        image.real, image.imag, power, shifts=shifts, basis=basis, workspace=workspace
    )
    found = search(
        tile,
        references,
        rotations,
        prior=torch.zeros(3, 3),
        n_candidates=6,
        workspace=workspace,
    )
    kx = torch.cos(basis.angles)[:, None] * basis.frequencies
    ky = torch.sin(basis.angles)[:, None] * basis.frequencies
    for i in range(3):
        for t in range(6):
            k, s = int(found.class_index[i, t]), int(found.shift_index[i, t])
            for p in (0, 7, 22):
                psi = float(rotations.angles[p])
                model = basis.to_half_rings(
                    references.harmonics[k] * torch.exp(1j * basis.orders * psi)
                ).T
                ramp = torch.exp(-2j * math.pi * (kx * shifts[s, 0] + ky * shifts[s, 1]))
                x = rings[:, :, i] * ramp
                c = ctf[:, :, 0]
                loss = (x - c * model).abs() ** 2 - x.abs() ** 2
                expected = -float((loss * weight[:, 0]).mean(0).sum())
                got = float(found.log_likelihood[i, t, p])
                assert got == pytest.approx(expected, rel=0.02, abs=2e-3 * abs(expected) + 30)


@pytest.mark.parametrize("score", ["likelihood", "correlation"])
def test_classes_searched_in_chunks_are_ranked_as_all_at_once(
    monkeypatch: pytest.MonkeyPatch, score: str
) -> None:
    basis, _, _, _, image, power = weighted(blobs(3))
    references, workspace = references_of(blobs(7, seed=1)), Workspace()
    shifts = torch.cartesian_prod(*[torch.arange(-1.0, 2) * PIXEL] * 2)
    tile = shift_tile(
        image.real, image.imag, power, shifts=shifts, basis=basis, workspace=workspace
    )

    def found() -> Candidates:
        return search(
            tile, references, make_rotations(basis), prior=-shifts.square().sum(1).expand(3, -1),
            n_candidates=5, workspace=workspace, score=score,
        )  # fmt: skip

    whole = found()
    monkeypatch.setattr("cryopick.alignment.search._CHUNK_VALUES", 5 * basis.n_orders * 3 * 9)
    assert len(references) > 2  # classes at once
    chunked = found()
    assert torch.equal(chunked.class_index, whole.class_index)
    assert torch.equal(chunked.shift_index, whole.shift_index)
    torch.testing.assert_close(chunked.log_likelihood, whole.log_likelihood, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(chunked.class_best, whole.class_best, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("psi", [0.0, 77.3, -140.0])
def test_the_true_pose_is_the_best_and_is_refined_below_the_grid(psi: float) -> None:
    average = blobs(2, seed=5)
    shift = torch.tensor([[5.3, -7.1]])
    turn = torch.tensor([psi])
    clean = transform_images(average[:1], psi=-turn, shift_x=torch.zeros(1), shift_y=torch.zeros(1))
    image = transform_images(
        clean, psi=torch.zeros(1), shift_x=-shift[:, 0] / PIXEL, shift_y=-shift[:, 1] / PIXEL
    )
    basis, _, _, _, image_rings, power = weighted(image, lens=False, noise=1e-2 / BOX**4)
    references = references_of(average)
    rotations = make_rotations(basis)
    axis = torch.arange(-2, 3) * 4.0
    shifts = torch.cartesian_prod(axis, axis)
    workspace = Workspace()
    tile = shift_tile(
        image_rings.real, image_rings.imag, power, shifts=shifts, basis=basis, workspace=workspace
    )
    found = search(
        tile,
        references,
        rotations,
        prior=torch.zeros(1, len(shifts)),
        n_candidates=4,
        workspace=workspace,
    )
    best = int(found.log_likelihood.flatten(1).argmax())
    pair, angle = divmod(best, len(rotations.angles))
    assert int(found.class_index[0, pair]) == 0
    refined = refine_poses(
        image_rings.real,
        image_rings.imag,
        power,
        references,
        class_index=torch.tensor([0]),
        psi=rotations.angles[angle][None],
        shift=shifts[found.shift_index[0, pair]][None],
        before=torch.zeros(1, 2),
        sigma_offset=1e6,
        largest_turn=0.2,
        largest_shift=4.0,
    )
    error = (math.degrees(float(refined.psi)) - psi + 180) % 360 - 180
    assert abs(error) < 0.3
    assert float((refined.shift - shift).abs().max()) < 0.05 * PIXEL


def test_sums_of_turned_images_give_the_image_back() -> None:
    image = blobs(1, seed=3)
    psi = torch.tensor([0.0, 50.0, 130.0, -95.0, 200.0, 10.0])
    zero = torch.zeros(len(psi))
    images = transform_images(image.expand(6, -1, -1), psi=-psi, shift_x=zero, shift_y=zero)
    basis, _, _, _, rings, power = weighted(images)
    workspace = Workspace()
    tile = shift_tile(
        rings.real, rings.imag, power, shifts=torch.zeros(1, 2), basis=basis, workspace=workspace
    )
    lens = weighted(images)[2]
    rings = rings * lens  # the images were not seen through the lens: see them through it now
    tile = shift_tile(
        rings.real, rings.imag, power, shifts=torch.zeros(1, 2), basis=basis, workspace=workspace
    )
    sums = RingSums.empty(2, basis)
    posed = PosedImages(
        image=torch.arange(6),
        class_index=torch.ones(6, dtype=torch.int64),
        shift_index=torch.zeros(6, dtype=torch.int64),
        turns=turn_phases(torch.deg2rad(psi), basis).T,
    )
    add_posed(sums, tile, posed, basis, workspace)
    expected = references_of(image).harmonics[0]
    mean = sums.numerator[1, :, 0].real / sums.denominator[1, :, 0].real
    assert float(sums.counts[1]) == 6
    assert float(sums.numerator[0].abs().max()) == 0
    rings_expected = basis.to_half_rings(expected)
    numerator = basis.to_half_rings(sums.numerator[1].to(torch.complex64))
    orders = basis.orders.new_tensor([0, 2, 4])
    phase = torch.exp(1j * orders[:, None] * basis.angles) * orders.new_tensor([1, 2, 2])[:, None]
    denominator = (sums.denominator[1].to(torch.complex64) @ phase.to(torch.complex64)).real
    found = numerator / denominator
    strong = denominator > 0.3 * denominator.mean()
    error = (found - rings_expected)[strong].abs().square().mean().sqrt()
    assert float(error) < 0.06 * float(rings_expected.abs().square().mean().sqrt())
    assert torch.isfinite(mean).all()
