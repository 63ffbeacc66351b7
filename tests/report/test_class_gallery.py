"""The picture of all class averages."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from cryopick.errors import OutputError, ShapeError
from cryopick.report.class_gallery import (
    arrange_classes,
    draw_class_gallery,
    write_class_gallery,
)


def averages(count, size=32):
    rows, columns = np.mgrid[:size, :size] - size // 2
    disc = np.hypot(rows, columns) < size / 4
    return np.stack([disc * (1.0 + k) for k in range(count)]).astype(np.float32)


def texts(figure):
    return [t.get_text() for axes in figure.axes for t in axes.texts]


def test_classes_are_sorted_by_size_and_empty_ones_left_out():
    gallery = arrange_classes(
        averages(5), counts=[3, 0, 9, 3, 0], resolutions=[30.0, np.inf, 9.0, np.inf, np.inf]
    )

    assert gallery.numbers.tolist() == [3, 1, 4]
    assert gallery.counts.tolist() == [9, 3, 3]
    assert gallery.n_empty == 2
    np.testing.assert_array_equal(gallery.images[0], averages(5)[2])


def test_every_class_is_captioned_with_number_count_and_resolution():
    gallery = arrange_classes(
        averages(4), counts=[30, 1234, 0, 5], resolutions=[12.34, 8.0, np.inf, np.inf]
    )

    figure = draw_class_gallery(gallery, title="Job 7")

    captions = texts(figure)
    assert captions == ["2", "1,234", "8.0 Å", "1", "30", "12.3 Å", "4", "5", "unknown"]
    assert figure.texts[0].get_text() == "Job 7"
    head = figure.texts[1].get_text()
    assert "3 classes, 1,269 particles; 1 empty class left out" in head


def test_numbers_of_the_users_own_are_shown():
    figure = draw_class_gallery(arrange_classes(averages(2), counts=[1, 2], numbers=[40, 77]))

    assert texts(figure) == ["77", "2", "40", "1"]


@pytest.mark.parametrize("count", [1, 2, 20, 50, 101, 200])
def test_captions_stay_apart_and_images_large_enough(count):
    gallery = arrange_classes(
        averages(count, size=8),
        counts=np.full(count, 12345),
        resolutions=np.full(count, 12.5),
        numbers=np.arange(count) + 100,
    )
    figure = draw_class_gallery(gallery, pixel_size=4.0)
    renderer = FigureCanvasAgg(figure).get_renderer()

    axes = figure.axes[0]
    boxes = [t.get_window_extent(renderer) for t in axes.texts[: 3 * count]]
    page = figure.bbox
    for index in range(count):
        number, size, detail = boxes[3 * index : 3 * index + 3]
        assert number.x1 < size.x0
        assert min(size.y0, number.y0) >= detail.y1 - 1
        assert page.x0 <= number.x0
        assert size.x1 <= page.x1
        assert detail.y0 >= page.y0
    side = axes.images[0].get_window_extent(renderer).width / figure.dpi
    assert side >= 0.7
    assert figure.get_figwidth() < 17


def test_images_keep_their_place_and_bright_stays_bright():
    gallery = arrange_classes(averages(3), counts=[5, 4, 3])
    figure = draw_class_gallery(gallery)
    figure.draw_without_rendering()

    shown = [np.asarray(image.get_array()) for image in figure.axes[0].images]
    for grey in shown:
        assert grey[16, 16] == pytest.approx(1.0)
        assert grey[0, 0] == pytest.approx(shown[0][0, 0])  # density 0 is the same grey in all
        assert 0.1 < grey[0, 0] < 0.5


def test_the_bar_shows_the_size_against_the_largest_class():
    gallery = arrange_classes(averages(2), counts=[25, 100])
    axes = draw_class_gallery(gallery).axes[0]

    widths = [patch.get_width() for patch in axes.patches]
    assert widths == pytest.approx([1.0, 1.0, 1.0, 0.25])


def test_nan_and_flat_images_are_drawn():
    images = averages(3)
    images[0] = np.nan
    images[1] = 0

    figure = draw_class_gallery(arrange_classes(images, counts=[1, 1, 1]))

    for image in figure.axes[0].images:
        assert np.isfinite(np.asarray(image.get_array())).all()


def test_the_file_is_a_png_and_only_empty_classes_are_a_sentence(tmp_path):
    write_class_gallery(tmp_path / "some.png", averages(3), counts=[1, 2, 3], pixel_size=3.0)
    write_class_gallery(tmp_path / "none.png", averages(2), counts=[0, 0])

    with Image.open(tmp_path / "some.png") as some, Image.open(tmp_path / "none.png") as none:
        assert some.format == none.format == "PNG"
        assert some.height > none.height
    assert sorted(p.name for p in tmp_path.iterdir()) == ["none.png", "some.png"]


def test_bad_input_is_refused(tmp_path):
    with pytest.raises(ShapeError, match="counts must have one value for each of the 3 classes"):
        arrange_classes(averages(3), counts=[1, 2])
    with pytest.raises(ShapeError, match="images must have shape"):
        arrange_classes(averages(3)[0], counts=[1])
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError):
        write_class_gallery(tmp_path / "folder.png", averages(1), counts=[1])
