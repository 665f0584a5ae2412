"""Tests of the tracking networks' parts: layers, regions of interest, detector, mesh."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sdtalk.tracking import detector, face_mesh
from sdtalk.tracking.detector import Detections
from sdtalk.tracking.face_mesh import LEFT_EYE, LIPS, RIGHT_EYE, FaceMesh
from sdtalk.tracking.layers import ResidualBlock, SameConv
from sdtalk.tracking.roi import Rois, between, crop, roi_from_landmarks, tiles, whole_pictures
from sdtalk.tracking.segmentation import UpStage

# ---- layers


@pytest.mark.parametrize(
    ("kernel", "stride", "before"), [(3, 1, 1), (3, 2, 0), (5, 1, 2), (5, 2, 1), (1, 1, 0)]
)
def test_same_padding_is_tensorflows(kernel: int, stride: int, before: int) -> None:
    conv = SameConv(1, 1, kernel, stride)
    x = torch.randn(1, 1, 8, 8)
    out = 8 // stride
    with torch.no_grad():
        result = conv(x)[0, 0]
        padded = torch.zeros(24, 24)
        padded[8:16, 8:16] = x[0, 0]
        for i in range(out):
            for j in range(out):
                top, left = 8 + i * stride - before, 8 + j * stride - before
                window = padded[top : top + kernel, left : left + kernel]
                expected = (window * conv.weight[0, 0]).sum() + conv.bias[0]
                torch.testing.assert_close(result[i, j], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_new_channels_of_a_block_start_without_skip(stride: int) -> None:
    block = ResidualBlock(3, 5, stride, torch.nn.Identity())
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        kept = x.clone()
        added = block(x) - block.pointwise(block.depthwise(x))
    assert torch.equal(x, kept)
    torch.testing.assert_close(added[:, :3], F.max_pool2d(x, 2) if stride == 2 else x)
    torch.testing.assert_close(added[:, 3:], torch.zeros_like(added[:, 3:]))


def test_up_stage_may_reduce_before_it_upsamples() -> None:
    stage, x = UpStage(6, 4), torch.randn(1, 6, 4, 4)
    with torch.no_grad():
        early = F.interpolate(stage.reduce(x), scale_factor=2, mode="bilinear", align_corners=False)
        late = stage.reduce(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
    torch.testing.assert_close(early, late, rtol=1e-4, atol=1e-5)


# ---- regions of interest


def sampled(picture: np.ndarray, x: float, y: float, zero_border: bool) -> np.ndarray:
    """The slow twin of the crop: one bilinear sample, pixel by pixel."""
    height, width = picture.shape[:2]
    total = np.zeros(3)
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            weight = (1 - abs(x - column)) * (1 - abs(y - row))
            outside = not (0 <= row < height and 0 <= column < width)
            if not (outside and zero_border):
                total += weight * picture[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    return total


@pytest.mark.parametrize("zero_border", [True, False])
@pytest.mark.parametrize("shape", [(9, 13), (1, 1), (1, 6)])
def test_crop_agrees_with_its_slow_twin(shape: tuple[int, int], zero_border: bool) -> None:
    pictures = torch.randint(0, 256, (2, *shape, 3), dtype=torch.uint8)
    rois = Rois(
        torch.tensor([[5.0, 4.3], [0.4, 8.0]]),
        torch.tensor([[11.0, 7.0], [9.0, 9.0]]),
        torch.tensor([0.4, -2.0]),
    )
    frames = torch.tensor([1, 0])
    cut = crop(pictures, rois, frames, 8, zero_border=zero_border)
    for k in range(2):
        cos, sin = math.cos(rois.rotation[k]), math.sin(rois.rotation[k])
        for j in range(8):
            for i in range(8):
                u, v = (i / 8 - 0.5) * float(rois.size[k, 0]), (j / 8 - 0.5) * float(rois.size[k, 1])
                x, y = (
                    u * cos - v * sin + float(rois.centre[k, 0]),
                    u * sin + v * cos + float(rois.centre[k, 1]),
                )
                expected = sampled(pictures[frames[k]].numpy().astype(float), x, y, zero_border)
                np.testing.assert_allclose(cut[k, :, j, i].numpy(), expected, atol=0.02)


def test_whole_crop_of_its_own_size_is_the_picture() -> None:
    picture = torch.randint(0, 256, (1, 16, 16, 3), dtype=torch.uint8)
    cut = crop(picture, whole_pictures(1, 16, 16, square=True), torch.tensor([0]), 16, zero_border=True)
    assert torch.equal(cut[0].permute(1, 2, 0).round().byte(), picture[0])


def test_points_come_back_to_where_the_crop_was_taken() -> None:
    """A bright dot found in the crop is brought back to its place in the picture."""
    picture = torch.zeros(1, 200, 300, 3, dtype=torch.uint8)
    picture[0, 88:93, 148:153] = 255
    rois = Rois(torch.tensor([[160.0, 80.0]]), torch.tensor([[90.0, 90.0]]), torch.tensor([0.7]))
    light = crop(picture, rois, torch.tensor([0]), 192, zero_border=True)[0, 0]
    y, x = torch.meshgrid(torch.arange(192.0), torch.arange(192.0), indexing="ij")
    found = torch.stack([(light * x).sum(), (light * y).sum()]) / light.sum()
    point = torch.cat([found, torch.tensor([19.2])])[None, None]
    torch.testing.assert_close(
        rois.to_picture(point, 192)[0, 0], torch.tensor([150.0, 90.0, 9.0]), atol=0.05, rtol=0
    )


def test_roi_from_landmarks_moves_with_the_face() -> None:
    points = torch.rand(1, 478, 3) * 100
    roi = roi_from_landmarks(points)
    moved = roi_from_landmarks(points * 2 + torch.tensor([10.0, -5.0, 0.0]))
    torch.testing.assert_close(moved.centre, roi.centre * 2 + torch.tensor([10.0, -5.0]))
    torch.testing.assert_close(moved.size, roi.size * 2)
    torch.testing.assert_close(moved.rotation, roi.rotation)
    longer = (points[..., :2].amax(1) - points[..., :2].amin(1)).max()
    torch.testing.assert_close(roi.size, (1.5 * longer).expand(1, 2))


def test_between_turns_the_shorter_way() -> None:
    one, two = (Rois(torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([a])) for a in (3.0, -3.0))
    middle = between(one, two, torch.tensor([0.5])).rotation
    assert abs(abs(float(middle)) - math.pi) < 1e-5


@pytest.mark.parametrize(("width", "height"), [(2000, 2000), (3000, 700), (640, 1500)])
def test_tiles_hold_every_face_that_is_half_a_tile_wide(width: int, height: int) -> None:
    squares = tiles(width, height)
    assert squares is not None
    low, high = squares.centre - squares.size / 2, squares.centre + squares.size / 2
    half = squares.size[0] / 2
    corners = torch.rand(200, 2) * (torch.tensor([width, height]) - half)
    inside = (low[None] <= corners[:, None] + 1e-2) & (corners[:, None] + half <= high[None] + 1e-2)
    assert inside.all(dim=-1).any(dim=-1).all()


def test_small_pictures_have_no_tiles() -> None:
    assert tiles(200, 100) is None


# ---- detector


def test_anchors_are_cell_centres_with_all_copies_together() -> None:
    centres = detector.anchors()
    assert centres.shape == (896, 2)
    torch.testing.assert_close(centres[:4] * 32, torch.tensor([[1.0, 1], [1, 1], [3, 1], [3, 1]]))
    torch.testing.assert_close(centres[512:524] * 16, torch.tensor([[1.0, 1]] * 6 + [[3.0, 1]] * 6))
    torch.testing.assert_close(centres[-1], torch.tensor([15 / 16, 15 / 16]))


def test_decode_reads_a_box_relative_to_its_anchor() -> None:
    raw, logits = torch.zeros(896, 16), torch.full((896,), -5.0)
    raw[600, :6] = torch.tensor([12.8, -12.8, 64.0, 32.0, 6.4, 0.0])
    raw[3, 2] = -1.0  # a negative width
    logits[600], logits[3] = 2.0, 9.0
    found = detector.decode(raw, logits)
    centre = detector.anchors()[600]
    assert len(found) == 1 and abs(float(found.scores) - torch.sigmoid(torch.tensor(2.0))) < 1e-6
    torch.testing.assert_close(
        found.boxes[0], centre.repeat(2) + torch.tensor([0.1 - 0.25, -0.1 - 0.125, 0.1 + 0.25, -0.1 + 0.125])
    )
    torch.testing.assert_close(found.keypoints[0, 0], centre + torch.tensor([0.05, 0.0]))


def some_detections(count: int, spread: float) -> Detections:
    low = torch.rand(count, 2) * spread
    scores = torch.rand(count).sort(descending=True).values * 0.5 + 0.5
    return Detections(
        torch.cat([low, low + 0.1 + torch.rand(count, 2) * 0.1], 1), torch.rand(count, 6, 2), scores
    )


@pytest.mark.parametrize("averaged", [True, False])
def test_merged_detections_are_fewer_and_in_order(averaged: bool) -> None:
    candidates = some_detections(60, 0.6)
    merged = detector.merge(candidates, averaged=averaged)
    assert 1 <= len(merged) <= 60
    assert (merged.scores.diff() <= 0).all() and merged.scores[0] == candidates.scores[0]
    if not averaged:
        for i in range(len(merged) - 1):
            assert (detector.overlaps(merged.boxes[i], merged.boxes[i + 1 :]) <= detector.MIN_OVERLAP).all()


def test_merging_keeps_what_is_apart_and_averages_what_is_not() -> None:
    boxes = torch.tensor([[0.0, 0, 1, 1], [0.0, 0, 1, 1.3], [5.0, 5, 6, 6]])
    candidates = Detections(boxes, torch.zeros(3, 6, 2), torch.tensor([0.9, 0.6, 0.55]))
    merged = detector.merge(candidates)
    torch.testing.assert_close(merged.scores, torch.tensor([0.9, 0.55]))
    torch.testing.assert_close(merged.boxes[0], torch.tensor([0.0, 0, 1, (0.9 + 0.6 * 1.3) / 1.5]))
    torch.testing.assert_close(merged.boxes[1], boxes[2])


def test_boxes_without_area_and_empty_lists_merge_to_nothing() -> None:
    point = Detections(torch.full((1, 4), 0.5), torch.zeros(1, 6, 2), torch.ones(1))
    assert len(detector.merge(point)) == 0 and len(detector.merge(point[:0])) == 0


# ---- mesh


def test_refined_points_are_disjoint_and_of_the_surface() -> None:
    refined = [*LIPS, *LEFT_EYE, *RIGHT_EYE]
    assert (len(LIPS), len(LEFT_EYE), len(RIGHT_EYE)) == (80, 71, 71)
    assert len(set(refined)) == len(refined) and max(refined) < face_mesh.MESH_SURFACE


def test_region_covers_its_points_with_a_margin() -> None:
    """The box along the level axis goes to the middle two thirds of the region."""
    points = torch.rand(3, 40, 2) * 60 + 60
    matrix = face_mesh.region_to_map(points, points[:, :2])
    local = torch.linalg.solve(matrix[:, :, :2], (points / 4 - matrix[:, None, :, 2]).transpose(1, 2))
    torch.testing.assert_close(local.amin(-1), torch.full((3, 2), 8 - 16 / 3), atol=1e-3, rtol=0)
    torch.testing.assert_close(local.amax(-1), torch.full((3, 2), 8 + 16 / 3), atol=1e-3, rtol=0)
    level = local[:, :, 1] - local[:, :, 0]
    assert (level[:, 0] > 0).all() and (level[:, 1].abs() < 1e-3).all()


def test_cutting_a_region_reads_pixel_centres_and_is_black_outside() -> None:
    features = torch.rand(1, 2, 48, 48)
    shift = torch.tensor([[[1.0, 0.0, 5.0], [0.0, 1.0, 40.0]]])
    cut = face_mesh.cut_region(features, shift)
    torch.testing.assert_close(cut[:, :, :8], features[:, :, 40:, 5:21], atol=1e-4, rtol=0)
    assert (cut[:, :, 8:] == 0).all()


def test_irises_get_the_depth_of_their_eye() -> None:
    with torch.no_grad():
        points, flags = FaceMesh().eval()(torch.rand(2, 3, 192, 192))
    assert points.shape == (2, 478, 3) and flags.shape == (2,)
    for iris, eye in ((slice(468, 473), LEFT_EYE), (slice(473, 478), RIGHT_EYE)):
        depth = points[:, list(eye[:16]), 2].mean(dim=1, keepdim=True)
        torch.testing.assert_close(points[:, iris, 2], depth.expand(2, 5))
