"""The picture of classes with their scores."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from cryopick.errors import ShapeError
from cryopick.report.score_gallery import arrange_scores, draw_score_gallery, write_score_gallery
from cryopick.selection.class_choice import choose_by_score, choose_these
from cryopick.selection.class_scores import ClassScores, Reason
from cryopick.selection.select_classes_parameters import SelectClassesParameters

GOOD = Reason(group="resolution", effect=0.21, text="resolves 9 Å")
BAD = Reason(group="edge", effect=-0.1, text="21% of the mask's edge is bright")
THIRD = Reason(group="look", effect=0.05, text="looks like a particle")


def averages(count, size=32):
    rows, columns = np.mgrid[:size, :size] - size // 2
    disc = np.hypot(rows, columns) < size / 4
    return np.stack([disc * (1.0 + k) for k in range(count)]).astype(np.float32)


def scores_of(values, reasons=(GOOD, BAD, THIRD)):
    score = np.asarray(values, float)
    return ClassScores(
        score=score,
        purity=score,
        quality=score,
        reasons=tuple(reasons if np.isfinite(s) else () for s in score),
    )


def gallery_of(values, counts, resolutions=None, chosen=None, **kwargs):
    scores, count = scores_of(values, **kwargs), np.asarray(counts, float)
    if chosen is None:
        choice = choose_by_score(scores.score, count, SelectClassesParameters())
    else:
        choice = choose_these(np.asarray(chosen), scores.score, count)
    return arrange_scores(
        averages(len(count)), scores, choice, counts=count, resolutions=resolutions
    )


def texts(figure):
    return [t.get_text() for axes in figure.axes for t in axes.texts]


def test_the_best_come_first_and_empty_classes_are_left_out():
    gallery = gallery_of([0.1, np.nan, 0.9, 0.7, np.nan], [9, 0, 3, 5, 4])

    assert gallery.numbers.tolist() == [3, 4, 1, 5]
    assert gallery.is_selected.tolist() == [True, True, False, False]
    assert gallery.n_empty == 1
    np.testing.assert_array_equal(gallery.images[0], averages(5)[2])


def test_headings_part_what_is_selected_from_what_is_not():
    gallery = gallery_of(
        [0.1, np.nan, 0.94, 0.7, np.nan], [9, 0, 1300, 5, 1], [30, np.inf, 9.04, 8, np.inf]
    )

    figure = draw_score_gallery(gallery, title="Job 7")

    found = texts(figure)
    assert found[0] == "Selected: 2 classes, 1,305 particles"
    assert found.index("class 4") < found.index("Not selected: 2 classes, 10 particles")
    assert found[1:6] == ["0.94", "class 3", "1,300", "9.0 Å", "+ resolves 9 Å"]
    assert " ".join("".join(found[6:8]).split()) == "\N{MINUS SIGN} " + BAD.text
    assert found[-4:] == ["no score", "class 5", "1", "-"]
    assert "looks like a particle" not in " ".join(found)  # the two strongest only
    head = " ".join(t.get_text() for t in figure.texts)
    assert head.startswith("Job 7 2 of 4 classes with 1,305 of 1,315 particles selected")
    assert "threshold 0.50; 1 empty class left out." in head


def test_the_heading_of_the_second_section_stands_between_the_images():
    figure = draw_score_gallery(gallery_of(np.linspace(0, 1, 20), np.full(20, 50)))
    figure.draw_without_rendering()
    axes = figure.axes[0]

    (heading,) = (t for t in axes.texts if t.get_text().startswith("Not selected"))
    place = heading.get_position()[1]
    tops = [image.get_extent()[3] for image in axes.images]
    assert max(tops[:10]) + 1 < place < min(tops[10:])


def test_the_bar_shows_the_score():
    axes = draw_score_gallery(gallery_of([0.25, 0.75, np.nan], [5, 5, 5])).axes[0]

    widths = [patch.get_width() for patch in axes.patches]
    assert widths == pytest.approx([1, 0.75, 1, 0.25, 1, 0])


@pytest.mark.parametrize("count", [1, 2, 20, 50, 200])
def test_captions_stay_within_their_images_and_the_page(count):
    long = Reason(group="a", effect=-0.2, text="bright at 21% of the rim of a mask of 230 Å, " * 3)
    gallery = gallery_of(
        np.linspace(0, 1, count), np.full(count, 12345), np.full(count, 12.5), reasons=(GOOD, long)
    )
    figure = draw_score_gallery(gallery, pixel_size=4.0)
    renderer = FigureCanvasAgg(figure).get_renderer()

    axes = figure.axes[0]
    assert all(t.get_window_extent(renderer).x1 < figure.bbox.x1 for t in figure.texts)
    images = [image.get_window_extent(renderer) for image in axes.images]
    gap = 0.09 * images[0].width
    boxes = {}
    for text in axes.texts:
        if "elected" in text.get_text() or text.get_text().endswith("nm"):
            continue
        box = text.get_window_extent(renderer)
        owners = [k for k, i in enumerate(images) if i.x0 - 1 <= box.x0 and box.y1 < i.y0]
        owner = max(owners, key=lambda k: (-images[k].y0, images[k].x0))
        boxes.setdefault(owner, []).append(box)
        assert box.x1 <= images[owner].x1 + gap
        assert box.y0 >= figure.bbox.y0
        assert box.x1 <= figure.bbox.x1
    for found in boxes.values():
        number = found[1]
        assert found[0].x1 < number.x0
        below = [*found[2:3], *found[4:]]
        for upper, lower in itertools.pairwise(below):
            assert upper.y0 > lower.y0
    lowest = {k: min(b.y0 for b in found) for k, found in boxes.items()}
    assert not any(lowest[k] < i.y1 < images[k].y0 for k in lowest for i in images)
    assert images[0].width / figure.dpi >= 1.1


def test_scores_stay_on_their_side_of_the_threshold():
    figure = draw_score_gallery(gallery_of([0.4999, 0.5, 0.4951], [5, 5, 5]))

    shown = [t for t in texts(figure) if t.startswith("0.")]
    assert shown == ["0.50", "0.49", "0.49"]
    assert "threshold 0.50." in figure.texts[1].get_text()


def test_a_selection_by_an_earlier_score_is_not_called_one_by_hand():
    scores, count = scores_of([0.2, 0.9]), np.ones(2)
    choice = choose_these(np.array([True, False]), scores.score, count, by_score=True)

    figure = draw_score_gallery(arrange_scores(averages(2), scores, choice, counts=count))

    assert "selected before, by score." in figure.texts[1].get_text()


def test_a_stack_has_no_counts_and_a_choice_no_threshold():
    gallery = gallery_of([0.2, 0.9], [np.nan, np.nan], chosen=[True, False])

    figure = draw_score_gallery(gallery)

    assert texts(figure)[:3] == ["Selected: 1 class", "0.20", "class 1"]
    assert "1 of 2 classes selected by hand." in figure.texts[1].get_text()
    assert "particles" not in figure.texts[2].get_text()


def test_files_are_written_also_without_any_class(tmp_path):
    parameters = SelectClassesParameters()
    for name, values, counts in (("some", [0.2, 0.7], [4, 5]), ("none", [np.nan] * 2, [0, 0])):
        scores, count = scores_of(values), np.asarray(counts, float)
        choice = choose_by_score(scores.score, count, parameters)
        path = tmp_path / f"{name}.png"
        write_score_gallery(path, averages(2), scores, choice, counts=count, pixel_size=3.0)

    with Image.open(tmp_path / "some.png") as some, Image.open(tmp_path / "none.png") as none:
        assert some.format == none.format == "PNG"
        assert some.height > none.height


def test_arrays_of_other_lengths_are_refused():
    scores = scores_of([0.2, 0.7])
    choice = choose_by_score(scores.score, np.ones(2), SelectClassesParameters())

    with pytest.raises(ShapeError, match="counts must have one value for each of the 2 classes"):
        arrange_scores(averages(2), scores, choice, counts=[1, 2, 3])
    with pytest.raises(ShapeError, match="scores must have one value for each of the 3 classes"):
        arrange_scores(averages(3), scores, choice, counts=[1, 2, 3])
