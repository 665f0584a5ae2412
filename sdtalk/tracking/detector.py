"""Face detector: BlazeFace short range (reference/tracker.md 3.1, 4.2 to 4.5)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sdtalk.tracking.layers import SameConv, residual_blocks
from sdtalk.tracking.roi import MARGIN, Rois

INPUT_PX = 128
MIN_SCORE = 0.5
MIN_OVERLAP = 0.3
"""Boxes that overlap more (intersection over union) are taken for the same face."""

ANCHOR_GRIDS = ((16, 2), (8, 6))
"""(cells a side, anchors a cell) of the two heads."""


@dataclass(frozen=True)
class Detections:
    """Faces found in one picture, best score first.

    Attributes:
        boxes: x_min, y_min, x_max, y_max, in px of the picture (or in 0..1 of the network's input).
        keypoints: Image-left eye, image-right eye, nose tip, mouth, image-left ear, image-right ear; same
            unit.
        scores: Probability that this is a face.
    """

    boxes: Float[Tensor, "face 4"]
    keypoints: Float[Tensor, "face 6 2"]
    scores: Float[Tensor, " face"]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: slice | Tensor) -> "Detections":
        return Detections(self.boxes[index], self.keypoints[index], self.scores[index])

    @classmethod
    def join(cls, parts: list["Detections"]) -> "Detections":
        """Put several lists together, best score first."""
        joined = cls(
            torch.cat([p.boxes for p in parts]),
            torch.cat([p.keypoints for p in parts]),
            torch.cat([p.scores for p in parts]),
        )
        return joined[joined.scores.argsort(descending=True, stable=True)]

    def to_picture(self, corner: Float[Tensor, "2"], side: Float[Tensor, ""]) -> "Detections":
        """From 0..1 of a square to px of the picture that the square was cut from."""
        return Detections(self.boxes * side + corner.repeat(2), self.keypoints * side + corner, self.scores)

    def rois(self) -> Rois:
        """The square of each face for the mesh: 1.5 times the longer side of the box, turned to the eyes."""
        low, high = self.boxes[:, :2], self.boxes[:, 2:]
        side = MARGIN * (high - low).amax(dim=1, keepdim=True)
        across = self.keypoints[:, 1] - self.keypoints[:, 0]
        return Rois((low + high) / 2, side.repeat(1, 2), torch.atan2(across[:, 1], across[:, 0]))


class Detector(nn.Module):
    """The network: a 128 px picture in [-1, 1] to 896 boxes and logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, 24, 5, 2)
        self.fine = residual_blocks(24, [24, 28, (32, 2), 36, 42, (48, 2), 56, 64, 72, 80, 88], _relu)
        self.coarse = residual_blocks(88, [(96, 2), 96, 96, 96, 96], _relu)
        self.fine_scores, self.coarse_scores = SameConv(88, 2), SameConv(96, 6)
        self.fine_boxes, self.coarse_boxes = SameConv(88, 32), SameConv(96, 96)

    def forward(
        self, pictures: Float[Tensor, "batch 3 128 128"]
    ) -> tuple[Float[Tensor, "batch 896 16"], Float[Tensor, "batch 896"]]:
        """Returns raw boxes (px of the input, relative to the anchors) and logits."""
        fine = self.fine(F.relu_(self.stem(pictures)))
        coarse = self.coarse(fine)

        def flat(x: Tensor, values: int) -> Tensor:
            return x.permute(0, 2, 3, 1).reshape(len(x), -1, values)

        boxes = torch.cat([flat(self.fine_boxes(fine), 16), flat(self.coarse_boxes(coarse), 16)], dim=1)
        logits = torch.cat([flat(self.fine_scores(fine), 1), flat(self.coarse_scores(coarse), 1)], dim=1)
        return boxes, logits[..., 0]


def _relu(_channels: int) -> nn.Module:
    return nn.ReLU(inplace=True)


def anchors() -> Float[Tensor, "896 2"]:
    """Anchor centres in 0..1 of the input, x before y: row by row, the anchors of a cell together."""
    centres = []
    for cells, copies in ANCHOR_GRIDS:
        line = (torch.arange(cells) + 0.5) / cells
        y, x = torch.meshgrid(line, line, indexing="ij")
        centres.append(torch.stack([x, y], dim=-1).reshape(-1, 2).repeat_interleave(copies, dim=0))
    return torch.cat(centres)


def decode(raw: Float[Tensor, "896 16"], logits: Float[Tensor, " 896"]) -> Detections:
    """Turn one picture's raw outputs into candidates with score >= 0.5, in 0..1 of the input, best first."""
    scores = torch.sigmoid(logits.clamp(-100, 100))
    sizes = raw[:, 2:4]
    kept = ((scores >= MIN_SCORE) & (sizes >= 0).all(dim=1)).nonzero()[:, 0]
    kept = kept[scores[kept].argsort(descending=True, stable=True)]
    points = raw[kept].reshape(-1, 8, 2) / INPUT_PX
    start = anchors().to(raw)[kept][:, None]
    centre, half, keypoints = points[:, 0] + start[:, 0], points[:, 1] / 2, points[:, 2:] + start
    return Detections(torch.cat([centre - half, centre + half], dim=1), keypoints, scores[kept])


def overlaps(box: Float[Tensor, "4"], boxes: Float[Tensor, "face 4"]) -> Float[Tensor, " face"]:
    """Intersection over union of a box with each of several."""
    low, high = torch.maximum(box[:2], boxes[:, :2]), torch.minimum(box[2:], boxes[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    return shared / ((box[2:] - box[:2]).prod() + areas - shared).clamp(min=1e-12)


def merge(candidates: Detections, *, averaged: bool = True) -> Detections:
    """Non-maximum suppression: one detection a face, best score first.

    Args:
        candidates: Best score first.
        averaged: Average box and keypoints over the candidates of a face, weighted by score (MediaPipe's
            way); otherwise the best candidate stays as it is. The score is the best one's in both cases.
    """
    merged = [candidates[:0]]
    while len(candidates):
        same = overlaps(candidates.boxes[0], candidates.boxes) > MIN_OVERLAP
        if not same.any():  # a box without area does not even overlap with itself
            break
        face = candidates[:1]
        if averaged:
            weights = candidates.scores[same] / candidates.scores[same].sum()
            face = Detections(
                (candidates.boxes[same] * weights[:, None]).sum(dim=0, keepdim=True),
                (candidates.keypoints[same] * weights[:, None, None]).sum(dim=0, keepdim=True),
                face.scores,
            )
        merged.append(face)
        candidates = candidates[~same]
    return Detections.join(merged)
