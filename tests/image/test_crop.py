from __future__ import annotations

import pytest
import torch

from conftest import available_devices
from cryopick.errors import ParameterError, ShapeError
from cryopick.image.crop import crop_boxes, place_boxes


def point(height, width, *, y, x, device="cpu"):
    image = torch.zeros(height, width, device=device)
    image[y, x] = 1
    return image


@pytest.mark.parametrize("device", available_devices())
@pytest.mark.parametrize("offset", [-0.5, -0.25, 0.0, 0.49])
def test_box_is_centred_on_the_nearest_pixel(device, offset):
    micrograph = point(48, 64, y=20, x=31, device=device)
    centers = torch.tensor([[20 + offset, 31.0]], device=device)

    boxes = crop_boxes(micrograph, centers, box_size=16)

    assert boxes.images[0, 8, 8] == 1
    torch.testing.assert_close(boxes.residual_yx, centers - centers.new_tensor([20, 31]))


@pytest.mark.parametrize("box_size", [2, 6, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_boxes_equal_slow_slices_with_repeated_edges(box_size, dtype):
    generator = torch.Generator().manual_seed(0)
    micrograph = torch.randn(37, 41, dtype=dtype, generator=generator)
    centers = torch.randint(-3, 44, (50, 2), generator=generator).double()
    pad = 60
    padded = torch.nn.functional.pad(micrograph[None], (pad,) * 4, mode="constant")[0]
    for axis, length in ((0, 37), (1, 41)):  # repeat rows, then columns
        padded = padded.index_select(
            axis, (torch.arange(length + 2 * pad) - pad).clamp(0, length - 1) + pad
        )

    boxes = crop_boxes(micrograph, centers, box_size=box_size)

    for image, (y, x) in zip(boxes.images, centers.long().tolist(), strict=True):
        top, left = y + pad - box_size // 2, x + pad - box_size // 2
        torch.testing.assert_close(
            image, padded[top : top + box_size, left : left + box_size], rtol=0, atol=0
        )


def test_a_box_is_complete_only_if_no_pixel_lies_over_an_edge():
    centers = torch.tensor([[4.0, 4.0], [3.0, 4.0], [16.0, 26.0], [17.0, 26.0], [16.0, 27.0]])

    boxes = crop_boxes(torch.zeros(20, 30), centers, box_size=8)

    assert boxes.is_complete.tolist() == [True, False, True, False, False]


def test_a_box_is_outside_only_if_it_has_no_pixel_of_the_micrograph():
    centers = torch.tensor([[-3.0, 9.0], [-4.0, 9.0], [9.0, 33.0], [9.0, 34.0]])

    placement = place_boxes(centers, shape=(20, 30), box_size=8)

    assert placement.is_outside.tolist() == [False, True, False, True]


def test_a_view_with_strides_gives_the_same_boxes():
    micrograph = torch.arange(40.0 * 60).reshape(40, 60)
    centers = torch.tensor([[9.0, 11.0], [1.0, 12.0]])

    direct = crop_boxes(micrograph.T.contiguous(), centers, box_size=10)
    strided = crop_boxes(micrograph.T, centers, box_size=10)

    torch.testing.assert_close(strided.images, direct.images)


def test_no_centres_give_no_boxes():
    boxes = crop_boxes(torch.zeros(8, 8), torch.zeros(0, 2), box_size=4)

    assert boxes.images.shape == (0, 4, 4)


def test_an_odd_box_is_refused_with_the_next_even_size():
    with pytest.raises(ParameterError, match="Try 128"):
        crop_boxes(torch.zeros(8, 8), torch.zeros(1, 2), box_size=127)


def test_wrong_axes_are_refused():
    with pytest.raises(ShapeError, match="micrograph must have shape"):
        crop_boxes(torch.zeros(1, 8, 8), torch.zeros(1, 2), box_size=4)
    with pytest.raises(ShapeError, match="centers_yx must have shape"):
        crop_boxes(torch.zeros(8, 8), torch.zeros(1, 3), box_size=4)
