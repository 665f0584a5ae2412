"""Tracking networks together: pictures in, landmarks and masks out."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sdtalk.errors import InputError
from sdtalk.tracking import detector, face_mesh, segmentation
from sdtalk.tracking.detector import Detections, Detector
from sdtalk.tracking.face_mesh import FaceMesh
from sdtalk.tracking.roi import Rois, crop, roi_from_landmarks, tiles, whole_pictures
from sdtalk.tracking.segmentation import Segmentation
from sdtalk.weights.assets import bundled

WEIGHTS = "tracker.safetensors"
BATCH = 16
"""Crops a forward pass; larger batches gain nothing on a CPU."""

MIN_FLAG = 0.5
"""A mesh whose face flag is lower shows no face."""

SURE_FLAG = 0.99995
"""A lower face flag (10 as a logit; good crops give 23 to 31) leaves doubt.

Measured on photos shrunk to 0.04 to 0.12 of a canvas: looked at a second time, in the square of their own
landmarks, faces rise above 12, whatever they had at first, and other things stay below.
"""

SAME_FACE = 0.5
"""Meshes whose boxes overlap more (intersection over union) show the same face."""


@dataclass(frozen=True)
class FaceLandmarks:
    """One face.

    Attributes:
        points: x, y, z in px of the picture: 468 points of the surface, then two irises of five (468 to 472
            image left, 473 to 477 image right). x, y follow MediaPipe's convention, "normalised landmark *
            width" (height) used directly, where 0 is the *centre* of the first pixel: add 0.5 for the
            convention of `sdtalk.camera`. z is relative to the head, smaller is nearer.
        score: Probability that this is a face, in [0.5, 1].
    """

    points: Float[Tensor, "478 3"]
    score: float

    @property
    def box(self) -> Float[Tensor, "4"]:
        """x_min, y_min, x_max, y_max of all points, in px."""
        return torch.cat([self.points[:, :2].amin(dim=0), self.points[:, :2].amax(dim=0)])

    @property
    def side(self) -> float:
        """Longer side of the box, in px."""
        return float((self.box[2:] - self.box[:2]).max())


class Networks(nn.Module):
    """The three networks, as they are saved."""

    def __init__(self) -> None:
        super().__init__()
        self.detector, self.face_mesh, self.segmentation = Detector(), FaceMesh(), Segmentation()


class FaceNetworks:
    """Finds faces, landmarks and masks in RGB pictures of 0 to 255, in batches; not differentiable."""

    def __init__(self, networks: Networks, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.networks = networks.to(self.device).eval()
        self.networks.requires_grad_(False)

    @classmethod
    def from_bundled(cls, device: torch.device | str = "cpu") -> "FaceNetworks":
        """Load the weights that come with the package.

        Raises:
            InputError: The file is missing or damaged.
        """
        path = bundled(WEIGHTS)
        networks = Networks()
        try:
            networks.load_state_dict({name: t.float() for name, t in load_file(path).items()})
        except (SafetensorError, RuntimeError) as error:
            raise InputError(
                str(path), "this file of the package is damaged", "Install sdtalk again"
            ) from error
        return cls(networks, device)

    def to(self, device: torch.device | str) -> "FaceNetworks":
        """Move the networks; results follow."""
        self.device = torch.device(device)
        self.networks.to(self.device)
        return self

    @torch.no_grad()
    def find_faces(
        self, pictures: UInt8[Tensor, "batch height width 3"], max_faces: int = 8, *, small: bool = True
    ) -> list[list[FaceLandmarks]]:
        """Find faces in single pictures, the largest first.

        Does what MediaPipe's FaceMesh does with `static_image_mode` and `refine_landmarks`. Only in pictures
        where that finds nothing, smaller faces (down to 0.04 of the longer side) are looked for in tiles.

        Args:
            pictures: RGB.
            max_faces: At most so many faces a picture, those with the best detector score.
            small: Whether to look for smaller faces at all.

        Returns:
            For each picture its faces; those with a doubtful flag stand behind all others, whatever their
            size. An empty list where there is none.
        """
        pictures = pictures.to(self.device)
        height, width = pictures.shape[1:3]
        whole = whole_pictures(1, width, height, square=True)
        faces = self._search(pictures, whole, max_faces, MIN_FLAG)
        for i, found in enumerate(faces):
            if small and not found:
                faces[i] = self.find_small_faces(pictures[i : i + 1], max_faces)
        return faces

    @torch.no_grad()
    def find_small_faces(
        self, picture: UInt8[Tensor, "1 height width 3"], max_faces: int = 8
    ) -> list[FaceLandmarks]:
        """Find faces of 0.04 to 0.3 of the longer side of one picture, the largest first; the surely found ones only.

        Args:
            picture: RGB.
            max_faces: At most so many, those with the best detector score.
        """
        squares = tiles(picture.shape[2], picture.shape[1])
        if squares is None:
            return []
        return self._search(picture.to(self.device), squares, max_faces, SURE_FLAG)[0]

    @torch.no_grad()
    def landmarks(
        self,
        pictures: UInt8[Tensor, "batch height width 3"],
        rois: Rois,
        frames: Int[Tensor, " roi"] | None = None,
    ) -> tuple[Float[Tensor, "roi 478 3"], Float[Tensor, " roi"]]:
        """Find the landmarks of faces whose place is known.

        Args:
            pictures: RGB.
            rois: Squares around faces, about 1.5 times as large as the face, turned so that the eyes are
                level.
            frames: For each region the index of its picture; default: one region a picture.

        Returns:
            Points as in `FaceLandmarks`, and the probability that there is a face.
        """
        points, logits = self.meshes(pictures, rois, frames)
        return points, torch.sigmoid(logits)

    @torch.no_grad()
    def meshes(
        self,
        pictures: UInt8[Tensor, "batch height width 3"],
        rois: Rois,
        frames: Int[Tensor, " roi"] | None = None,
    ) -> tuple[Float[Tensor, "roi 478 3"], Float[Tensor, " roi"]]:
        """As `landmarks`, with the face flag as a logit: probabilities above 10 all round to 1."""
        pictures, rois = pictures.to(self.device), rois.to(self.device)
        if frames is None:
            frames = torch.arange(len(rois), device=self.device)
        points, logits = [], []
        for start in range(0, len(rois), BATCH):
            part = slice(start, start + BATCH)
            crops = crop(pictures, rois[part], frames[part], face_mesh.INPUT_PX, zero_border=False)
            found, flags = self.networks.face_mesh(crops / 255)
            points.append(rois[part].to_picture(found, face_mesh.INPUT_PX))
            logits.append(flags)
        if not points:
            shape = (0, face_mesh.MESH_SURFACE + 10, 3)
            return torch.zeros(shape, device=self.device), torch.zeros(0, device=self.device)
        return torch.cat(points), torch.cat(logits)

    @torch.no_grad()
    def look_again(
        self,
        pictures: UInt8[Tensor, "batch height width 3"],
        points: Float[Tensor, "face 478 3"],
        flags: Float[Tensor, " face"],
        frames: Int[Tensor, " face"],
        doubtful: Bool[Tensor, " face"],
    ) -> tuple[Float[Tensor, "face 478 3"], Float[Tensor, " face"]]:
        """Replace the landmarks of doubtful faces by what the mesh finds in the squares of those landmarks.

        Args:
            pictures: RGB.
            points: Landmarks as from `landmarks`.
            flags: Their face flags.
            frames: For each face the index of its picture.
            doubtful: Which faces to look at again.
        """
        which = doubtful.nonzero()[:, 0]
        if not len(which):
            return points, flags
        found, found_flags = self.landmarks(pictures, roi_from_landmarks(points[which]), frames[which])
        return points.index_copy(0, which, found), flags.index_copy(0, which, found_flags)

    @torch.no_grad()
    def person_mask(
        self, pictures: UInt8[Tensor, "batch height width 3"]
    ) -> Float[Tensor, "batch 1 height width"]:
        """Probability that a pixel shows a person; the network sees the picture stretched to 256 x 256 px."""
        pictures = pictures.to(self.device)
        height, width = pictures.shape[1:3]
        masks = []
        for start in range(0, len(pictures), BATCH):
            part = pictures[start : start + BATCH]
            rois = whole_pictures(len(part), width, height, square=False).to(self.device)
            frames = torch.arange(len(part), device=self.device)
            crops = crop(part, rois, frames, segmentation.INPUT_PX, zero_border=True)
            mask = self.networks.segmentation(crops / 255)
            masks.append(F.interpolate(mask, (height, width), mode="bilinear", align_corners=False))
        return torch.cat(masks)

    def _search(
        self, pictures: UInt8[Tensor, "batch height width 3"], squares: Rois, max_faces: int, min_flag: float
    ) -> list[list[FaceLandmarks]]:
        """Look for faces in the given squares of every picture; drop those with a lower flag."""
        detections = [found[:max_faces] for found in self._detect(pictures, squares)]
        counts = torch.tensor([len(found) for found in detections], device=self.device)
        frames = torch.arange(len(pictures), device=self.device).repeat_interleave(counts)
        points, flags = self.landmarks(pictures, Rois.join([d.rois() for d in detections]), frames)
        points, flags = self.look_again(pictures, points, flags, frames, flags < SURE_FLAG)
        faces: list[list[FaceLandmarks]] = [[] for _ in detections]
        for frame, face_points, flag in zip(frames.tolist(), points, flags.tolist(), strict=True):
            if flag > min_flag:
                faces[frame].append(FaceLandmarks(face_points, flag))
        return [_distinct(found) for found in faces]

    def _detect(self, pictures: UInt8[Tensor, "batch height width 3"], squares: Rois) -> list[Detections]:
        """Run the detector on the given squares of every picture; positions in px of the picture."""
        rois = Rois.join([squares.to(self.device)] * len(pictures))
        frames = torch.arange(len(pictures), device=self.device).repeat_interleave(len(squares))
        found = []
        for start in range(0, len(rois), BATCH):
            part = rois[start : start + BATCH]
            crops = crop(pictures, part, frames[start : start + BATCH], detector.INPUT_PX, zero_border=True)
            raw, logits = self.networks.detector(crops / 127.5 - 1)
            for corner, side, r, s in zip(
                part.centre - part.size / 2, part.size[:, 0], raw, logits, strict=True
            ):
                found.append(detector.merge(detector.decode(r, s)).to_picture(corner, side))
        if len(squares) == 1:
            return found
        # Averaging is for the many anchors of one square; a face cut by a tile's edge must not pull at the
        # others.
        groups = [found[i : i + len(squares)] for i in range(0, len(found), len(squares))]
        return [detector.merge(Detections.join(group), averaged=False) for group in groups]


def _distinct(faces: list[FaceLandmarks]) -> list[FaceLandmarks]:
    """Drop meshes of a face that an earlier mesh already shows; the largest first, doubtful ones last."""
    kept: list[FaceLandmarks] = []
    for face in faces:
        if not kept or detector.overlaps(face.box, torch.stack([k.box for k in kept])).max() <= SAME_FACE:
            kept.append(face)
    return sorted(kept, key=lambda face: (face.score >= SURE_FLAG, face.side), reverse=True)
