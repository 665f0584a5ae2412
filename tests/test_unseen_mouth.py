"""Tests of drawn teeth: their proportions, how they hang on a face, and what is drawn inside of an opening mouth."""

from dataclasses import replace

import torch
from test_window_renderer import FACE, facing, geometry_of, opened

from sdtalk.motion.face_motion import moved_face
from sdtalk.rendering.dental_arch import (
    LOWER_WIDTHS_MM,
    PX_PER_MM,
    STRIP_COLUMNS,
    UPPER_WIDTHS_MM,
    DentalArches,
)
from sdtalk.rendering.face_windows import MOUTH, RIGHT_EYE
from sdtalk.rendering.window_geometry import WindowGeometry
from sdtalk.rendering.window_inputs import FADE, correction_count, window_inputs
from sdtalk.tracking.completion import MM, SKULL

ARCHES = DentalArches.average()
CLOSED = opened(-float(FACE.mouth_opening(FACE.mean_face[None])))


def opening(amount: float) -> WindowGeometry:
    """A photo with a closed mouth, opened."""
    rest = facing().project(CLOSED)
    g = geometry_of(
        MOUTH, moved_face(CLOSED, torch.tensor([[amount, 0.0, 0.0, 0.0, 0.0]]), torch.zeros(1, 6))
    )
    corner = (facing().project(FACE.mean_face[None]) - g.rest_xy)[:, :1]
    return replace(g, photo_xy=rest, rest_xy=rest - corner)


def test_teeth_are_as_wide_as_teeth_and_an_arch_is_symmetric() -> None:
    upper, lower, tongue = ARCHES.picture.chunk(3, 1)
    assert not upper[1].any() and not lower[0].any() and not tongue[:2].any()
    for drawn, widths in ((upper[0], UPPER_WIDTHS_MM), (lower[1], LOWER_WIDTHS_MM)):
        torch.testing.assert_close(drawn, drawn.flip(1), atol=1e-3, rtol=0)
        row = drawn[drawn.amax(1).argmax()][drawn.shape[1] // 2 :]
        for border in (
            torch.tensor(widths[:4]).cumsum(0).tolist()
        ):  # darker between two teeth than at their middles
            at = round(border * PX_PER_MM)
            assert row[at - 1 : at + 1].mean() < 0.85 * row[at - 6 : at + 6].max()


def test_arches_hang_on_the_face_as_an_affine_map_would_carry_them() -> None:
    places = ARCHES.weights @ FACE.mean_face
    turn = torch.tensor([[0.9, 0.2, -0.1], [-0.1, 1.1, 0.3], [0.2, 0.0, 0.8]])
    torch.testing.assert_close(
        ARCHES.weights @ (FACE.mean_face @ turn + 2), places @ turn + 2, atol=1e-4, rtol=0
    )
    edges = places[:STRIP_COLUMNS]  # of the upper arch
    middle = edges[len(edges) // 2]
    nose = FACE.mean_face[SKULL].mean(0)
    assert abs(middle[0]) < 0.2 * MM and 20 * MM < nose[1] - middle[1] < 30 * MM
    assert middle[2] > edges[0, 2] and abs(edges[0, 0] + edges[-1, 0]) < 0.4 * MM


def test_a_mouth_that_opens_shows_teeth_at_its_lips_and_a_dark_cavity_between() -> None:
    """Where the photo, with its mouth closed, shows nothing."""
    inputs = window_inputs(MOUTH, opening(1.4))
    assert inputs.teeth is not None and inputs.silent.sum() > 500
    upper, lower = inputs.planes[:, -3:-1].unbind(1)
    rows = torch.arange(MOUTH.size)[None, :, None]
    heights = [(part * rows).sum() / part.sum() for part in (upper, lower)]
    assert heights[0] < heights[1] and not (upper * lower).max() > 0.3
    cavity = (inputs.silent[:, 0] > 0.9) & (upper + lower < 0.02)
    shown = (inputs.silent[:, 0] > 0.9) & (upper > 0.4)
    bright = inputs.base.mean(1)
    assert cavity.sum() > 50 and shown.sum() > 50 and bright[shown].mean() > 1.5 * bright[cavity].mean()
    hidden = torch.zeros(1, 5, MOUTH.size, MOUTH.size)
    hidden[:, 3:] = -10
    gone = inputs.painted(hidden)
    bare = inputs.base - FADE * inputs.freedom * inputs.teeth.sum(1)
    torch.testing.assert_close(gone, bare, atol=1e-4, rtol=0)


def test_the_lower_teeth_follow_the_jaw_and_the_upper_ones_do_not() -> None:
    rest = facing().project(CLOSED)
    places = []
    for amount in (1.0, 1.6):
        g = opening(amount)
        corner = (rest - g.rest_xy)[0, 0]
        upper, lower = window_inputs(MOUTH, g).planes[0, -3:-1]
        rows = torch.arange(MOUTH.size)[:, None] + corner[1]
        tops = [rows[part.amax(1) > 0.4] for part in (upper, lower)]
        places.append((tops[0].max(), tops[1].min()))  # edge of the upper teeth, edge of the lower ones
    lip = (facing().project(opened(1.6)) - facing().project(opened(1.0)))[0, 14, 1]
    assert (places[1][0] - places[0][0]).abs() <= 2
    assert 4 < 0.5 * lip < places[1][1] - places[0][1] < lip + 2


def test_between_lids_there_are_no_teeth() -> None:
    inputs = window_inputs(RIGHT_EYE, geometry_of(RIGHT_EYE, opened(0.5)))
    assert inputs.teeth is None and not inputs.silent.any()


def test_a_grey_photo_gets_a_grey_mouth() -> None:
    """Whatever the painter has learned of lips and teeth in colour."""
    for window in (MOUTH, RIGHT_EYE):
        g = opening(1.2) if window is MOUTH else geometry_of(window, opened(0.5))
        coloured = window_inputs(window, g)
        assert (coloured.colourful == 1).all()
        inputs = window_inputs(window, replace(g, photo=g.photo.mean(1, keepdim=True).expand_as(g.photo)))
        torch.manual_seed(0)
        painted = inputs.painted(torch.randn(1, correction_count(window), window.size, window.size))
        torch.testing.assert_close(
            painted, painted.mean(1, keepdim=True).expand_as(painted), atol=1e-5, rtol=0
        )
        changed = coloured.painted(torch.randn(1, correction_count(window), window.size, window.size))
        assert (changed - changed.mean(1, keepdim=True)).abs().max() > 0.1
