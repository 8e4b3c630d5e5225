"""Boxes on pixels: every edge where the box says, seen on any ground, the best on top."""

import numpy as np
import pytest

from cnn_papers.data import drawing
from cnn_papers.data.drawing import BLACK, COLOURS, WHITE

RED, GREEN = (255, 0, 0), (0, 255, 0)
GREY = np.full((40, 60, 3), 128, np.uint8)


def where(image: np.ndarray, colour: tuple[int, ...]) -> list[int]:
    """Returns the box [y1, x1, y2, x2] around the pixels of a colour."""
    rows, columns = np.nonzero((image == colour).all(-1))
    return [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]


@pytest.mark.parametrize("zoom", [1, 3])
def test_a_box_is_drawn_on_its_edges_and_black_beside_them(zoom):
    drawn = drawing.draw_boxes(GREY, np.array([[10.0, 12.0, 30.0, 45.0]]), [""], [RED], zoom=zoom)
    assert drawn.shape == (40 * zoom, 60 * zoom, 3) and drawn.dtype == np.uint8
    edges = np.array([10, 12, 30, 45]) * zoom
    outline = np.abs(np.array(where(drawn, RED)) - edges)
    assert outline.max() <= 1  # a line of two pixels
    halo = np.array(where(drawn, BLACK)) - edges
    assert (halo[:2] < 0).all() and (halo[2:] > 0).all()
    inside = drawn[14 * zoom : 26 * zoom, 16 * zoom : 41 * zoom]
    assert (inside == 128).all()
    assert (drawn[:6] == 128).all() and (drawn[:, :8] == 128).all()


def test_the_image_given_stays_as_it_is():
    image = GREY.copy()
    drawing.draw_boxes(image, np.array([[0, 0, 40, 60]]), ["a"], [RED])
    np.testing.assert_array_equal(image, GREY)


def test_a_grey_image_is_drawn_on_in_colour():
    drawn = drawing.draw_boxes(GREY[..., :1], np.array([[5, 5, 30, 30]]), [""], [RED])
    assert drawn.shape == (40, 60, 3) and (drawn == RED).all(-1).any()


def test_no_box_leaves_the_pixels():
    np.testing.assert_array_equal(drawing.draw_boxes(GREY, np.zeros((0, 4)), [], []), GREY)


@pytest.mark.parametrize(
    "box",
    [
        [0, 0, 40, 60],
        [-50, -9, 400, 600],  # beyond the image
        [np.float32(3.4), np.float32(2.6), np.float32(39.7), np.float32(60.2)],
    ],
)
def test_every_box_is_seen(box):
    drawn = drawing.draw_boxes(GREY, np.array([box]), [""], [RED])
    low, high = where(drawn, RED)[:2], where(drawn, RED)[2:]
    assert np.all(np.abs(np.array(low) - np.clip(np.rint(box[:2]), 0, 60)) <= 1)
    assert np.all(np.abs(np.array(high) - np.clip(np.rint(box[2:]), 0, (40, 60))) <= 1)


def test_a_box_without_an_area_is_a_dot():
    drawn = drawing.draw_boxes(GREY, np.array([[10, 20, 10, 20]]), [""], [RED])
    y1, x1, y2, x2 = where(drawn, RED)
    assert 9 <= y1 < y2 <= 12 and 19 <= x1 < x2 <= 22


def test_the_first_box_and_its_tag_are_on_top():
    same = np.array([[15, 5, 35, 50]] * 2)
    drawn = drawing.draw_boxes(GREY, same, ["", ""], [RED, GREEN])
    assert (drawn == RED).all(-1).any() and not (drawn == GREEN).all(-1).any()
    tagged = drawing.draw_boxes(GREY, same, ["", "b"], [RED, GREEN])
    assert (tagged == GREEN).all(-1).any()


@pytest.mark.parametrize(
    ("box", "rows"),
    [([20, 4, 35, 30], range(20)), ([2, 4, 35, 30], range(2, 35))],
    ids=["above", "below where there is no room above"],
)
def test_a_label_stands_in_a_tag_of_the_boxs_colour(box, rows):
    plain = drawing.draw_boxes(GREY, np.array([box]), [""], [GREEN])
    tagged = drawing.draw_boxes(GREY, np.array([box]), ["ab"], [GREEN])
    changed = np.nonzero((plain != tagged).any(-1))[0]
    assert len(changed) and {*changed.tolist()} <= {*rows, rows[-1] + 1}


def test_a_tag_at_the_right_edge_stays_whole():
    left, right = (
        drawing.draw_boxes(GREY, np.array([[25, x, 40, x + 5]]), ["ab"], [RED]) for x in (5, 55)
    )
    tags = [(drawn[:20] != 128).any(-1) for drawn in (left, right)]
    assert tags[0].sum() == tags[1].sum() > 0


def test_text_is_dark_on_bright_and_bright_on_dark():
    tall = np.full((60, 200, 3), 128, np.uint8)
    for colour, text in (((255, 255, 0), BLACK), ((0, 0, 120), WHITE)):
        drawn = drawing.draw_boxes(tall, np.array([[30, 10, 55, 190]]), ["MMM"], [colour])
        tag = drawn[14:26, 8:60].astype(int)
        assert np.abs(tag - text).sum(-1).min() < 60


def test_a_letter_that_opencv_cannot_draw_is_a_question_mark():
    one, other = (
        drawing.draw_boxes(GREY, np.array([[20, 4, 35, 30]]), [text], [GREEN])
        for text in ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "caf?")
    )
    np.testing.assert_array_equal(one, other)


def test_a_small_image_is_enlarged_until_labels_can_be_read():
    sides = {(64, 64): 5, (32, 48): 7, (320, 10): 1, (500, 375): 1}
    for shape, zoom in sides.items():
        assert drawing.legible_zoom(np.zeros((*shape, 3), np.uint8)) == zoom


def test_neighbouring_classes_have_other_colours():
    assert len({drawing.colour_of(label) for label in range(len(COLOURS))}) == len(COLOURS)
    assert drawing.colour_of(len(COLOURS)) == drawing.colour_of(0)
