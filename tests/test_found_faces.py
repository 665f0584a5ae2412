"""Tests of found faces: numbered from the left, told where they lie wrong or are no bare human face; made pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from sdtalk.errors import InputError
from sdtalk.image import Picture, crop_picture, read_picture, turned_picture
from sdtalk.tracking.found_faces import chosen_face, found_faces, largest_face
from sdtalk.tracking.networks import FaceLandmarks, FaceNetworks
from sdtalk.tracking.portrait_notes import COVERED_EYES, COVERED_MOUTH, NOT_HUMAN, UNSTEADY, face_notes
from sdtalk.tracking.steadiness import Steadiness, measure_steadiness
from sdtalk.tracking.tracker import Tracker

EXAMPLE = Path(__file__).parent.parent / "examples" / "eileen_collins.png"


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    return Tracker.from_bundled()


@pytest.fixture(scope="module")
def networks(tracker: Tracker) -> FaceNetworks:
    return tracker.networks


@pytest.fixture(scope="module")
def portrait(tracker: Tracker) -> np.ndarray:
    """Head and shoulders, 400 px."""
    whole = read_picture(EXAMPLE).pixels
    return crop_picture(whole, tracker.portrait(whole, "whole").crop, 400)


@pytest.fixture(scope="module")
def face(networks: FaceNetworks, portrait: np.ndarray) -> FaceLandmarks:
    return networks.find_faces(torch.from_numpy(portrait)[None])[0][0]


def side_by_side(portrait: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    pictures = [np.array(Image.fromarray(portrait).resize((size, size))) for size in sizes]
    pictures = [np.pad(p, ((0, max(sizes) - len(p)), (0, 0), (0, 0)), mode="edge") for p in pictures]
    return np.concatenate(pictures, axis=1)


def covered(portrait: np.ndarray, face: FaceLandmarks, around: int, below: float, above: float) -> np.ndarray:
    """With a grey board before the face: as wide as the face, from above to below a landmark, in face heights."""
    left, top, right, bottom = face.box.tolist()
    y, height, image = float(face.points[around, 1]), bottom - top, Image.fromarray(portrait)
    ImageDraw.Draw(image).rectangle(
        (left, y - above * height, right, y + below * height), fill=(150, 160, 170)
    )
    return np.array(image)


def test_a_bare_face_seen_upright_is_not_remarked_on(networks: FaceNetworks, portrait: np.ndarray) -> None:
    (found,) = found_faces(portrait, networks)
    assert (found.notes, found.turned_deg) == ((), 0) and found.score > 0.99


def test_faces_are_numbered_from_left_to_right(tracker: Tracker, portrait: np.ndarray) -> None:
    picture = side_by_side(portrait, (300, 400, 240))
    faces = found_faces(picture, tracker.networks)
    assert len(faces) == 3 and largest_face(faces) == 2
    for number, (start, end) in enumerate(((0, 300), (300, 700), (700, 940)), 1):
        left, _, right, _ = faces[number - 1].box
        assert start < left < right < end
        crop = tracker.portrait(picture, "three", face=number).crop
        assert start < crop.left + crop.side / 2 < end
    assert "the largest is used (number 2" in tracker.portrait(picture, "three").note
    assert tracker.portrait(picture, "three", face=2).note == ""


def test_a_face_that_is_not_there_is_refused_with_how_many_there_are(
    networks: FaceNetworks, portrait: np.ndarray
) -> None:
    faces = found_faces(portrait, networks)
    for number in (2, -1):
        with pytest.raises(InputError, match="^face -?[0-9]: 1 face is to be seen in me.png. Choose 1 to 1"):
            chosen_face(faces, number, "me.png")
    assert chosen_face(faces, 0, "me.png") is chosen_face(faces, 1, "me.png")


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_photo_that_lies_wrong_is_told_and_its_turn_rights_it(
    tracker: Tracker, portrait: np.ndarray, degrees: int
) -> None:
    wide = np.pad(portrait, ((0, 0), (0, 150), (0, 0)), mode="edge")
    (upright,) = found_faces(wide, tracker.networks)
    wrong = turned_picture(Picture(wide), 360 - degrees).pixels
    (found,) = found_faces(wrong, tracker.networks)
    assert found.turned_deg == degrees and len(found.notes) == 1
    assert ("upside down" if degrees == 180 else "on its side") in found.notes[0]
    np.testing.assert_array_equal(turned_picture(Picture(wrong), found.turned_deg).pixels, wide)
    # the box is that of the picture as given
    left, top, right, bottom = found.box
    height, width = wide.shape[:2]
    given = {
        90: (width - bottom, left, width - top, right),
        180: (width - right, height - bottom, width - left, height - top),
        270: (top, height - right, bottom, height - left),
    }[degrees]
    np.testing.assert_allclose(given, upright.box, atol=12)
    if degrees == 180:
        with pytest.raises(
            InputError, match="^me.png: the face in this picture stands upside down.*--turn 180"
        ):
            tracker.portrait(wrong, "me.png")


def test_only_quarters_are_turned(portrait: np.ndarray) -> None:
    picture = Picture(portrait, portrait[..., 0])
    turned = turned_picture(picture, 90)
    np.testing.assert_array_equal(turned.pixels[:, -1], portrait[0])  # the upper edge is now the right one
    np.testing.assert_array_equal(turned.alpha, turned.pixels[..., 0])
    assert turned_picture(picture, 0) is picture
    with pytest.raises(InputError, match="^turn 45: .*quarters"):
        turned_picture(picture, 45)


def test_a_covered_mouth_is_told(networks: FaceNetworks, portrait: np.ndarray, face: FaceLandmarks) -> None:
    (found,) = found_faces(covered(portrait, face, 13, below=0.3, above=0.15), networks)
    assert found.notes == (COVERED_MOUTH,)


def test_dark_glasses_are_told(networks: FaceNetworks, portrait: np.ndarray, face: FaceLandmarks) -> None:
    image = Image.fromarray(portrait)
    for outer, inner in ((33, 133), (263, 362)):
        x, y = ((face.points[outer] + face.points[inner]) / 2)[:2].tolist()
        reach = 0.9 * float((face.points[outer] - face.points[inner]).norm())
        ImageDraw.Draw(image).ellipse(
            (x - reach, y - 0.8 * reach, x + reach, y + 0.8 * reach), fill=(20, 18, 20)
        )
    (found,) = found_faces(np.array(image), networks)
    assert found.notes == (COVERED_EYES,)


def test_a_mesh_that_is_guessed_is_no_human_face(portrait: np.ndarray, face: FaceLandmarks) -> None:
    """Numbers of a dog and of monkeys; a person's, and a profile's, which is unsteady for another reason."""
    pictures = torch.from_numpy(portrait)[None]
    for values, wanted in (
        (Steadiness(0.054, 0.031, 0.05, 24.5, -5.5), (NOT_HUMAN,)),
        (Steadiness(0.106, 0.12, 0.113, 23.3, 0.5), (NOT_HUMAN,)),
        (Steadiness(0.040, 0.025, 0.042, 20.9, 1.9), ()),
    ):
        assert face_notes(face, values, pictures) == wanted


def test_steadiness_is_measured_a_face_at_a_time_and_falls_upside_down(
    networks: FaceNetworks, portrait: np.ndarray
) -> None:
    couple = torch.from_numpy(side_by_side(portrait, (400, 300)))[None]
    faces = networks.find_faces(couple)[0]
    together = measure_steadiness(networks, couple, faces)
    alone = measure_steadiness(networks, couple, faces[1:])
    assert all(s.moved < UNSTEADY and s.flag > 20 and s.gain > 0 for s in together)
    assert together[1].moved == pytest.approx(alone[0].moved, rel=1e-3)
    standing = torch.rot90(torch.from_numpy(portrait)[None], 2, (1, 2)).contiguous()
    (guessed,) = measure_steadiness(networks, standing, networks.find_faces(standing)[0][:1])
    assert guessed.moved > UNSTEADY and guessed.flag < 20
    assert measure_steadiness(networks, couple, []) == []


def test_no_face_is_no_face_whichever_way_round(networks: FaceNetworks) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    assert found_faces(noise, networks) == []
