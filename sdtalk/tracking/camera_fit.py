"""Camera fit: face-mesh landmarks in a picture to the camera in front of the head, in closed form."""

import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.camera import FOCAL_PX, FRAME_SIZE, Camera
from sdtalk.image import Crop


def fit_similarity(
    source: Float[Tensor, "point 3"],
    target: Float[Tensor, "batch point 3"],
    weights: Float[Tensor, " point"],
) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch 3 3"], Float[Tensor, "batch 3"]]:
    """Weighted least-squares similarity: target = scale * rotation @ source + translation.

    S. Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991.

    Returns:
        Scales (> 0), proper rotations and translations.
    """
    share = (weights / weights.sum())[:, None]
    source_centre = (share * source).sum(0)
    target_centre = (share * target).sum(1)
    source, target = source - source_centre, target - target_centre[:, None]
    u, singular, vt = torch.linalg.svd(target.transpose(1, 2) @ (share * source))
    signs = torch.ones_like(singular)
    signs[:, 2] = torch.det(u @ vt).sign()  # keeps a reflection from passing as a rotation
    rotation = (u * signs[:, None]) @ vt
    scale = (singular * signs).sum(1) / (share * source.square()).sum()
    translation = target_centre - scale[:, None] * (rotation @ source_centre)
    return scale, rotation, translation


def landmarks_in_crop(
    landmarks_px: Float[Tensor, "batch point 3"], crop: Crop, size: int = FRAME_SIZE
) -> Float[Tensor, "batch point 3"]:
    """Bring landmarks into the size x size resampling of a crop, where pixel (i, j) has its centre at + 0.5.

    Args:
        landmarks_px: In px of the picture as `FaceLandmarks` has them, 0 = centre of the first pixel.
        crop: Part of the picture.
        size: Side of the resampled crop in px.
    """
    corner = landmarks_px.new_tensor([crop.left - 0.5, crop.top - 0.5, 0.0])
    return (landmarks_px - corner) * (size / crop.side)


def unproject_landmarks(
    landmarks_px: Float[Tensor, "batch point 3"], size: int = FRAME_SIZE
) -> Float[Tensor, "batch point 3"]:
    """Camera-space points of landmarks, up to the unknown distance of the head.

    The mesh network's z has the scale of x and y at the head, so a point lies at depth
    distance + z * distance / focal = distance * (1 + z / focal). Its x and y on the viewing ray are
    proportional to that depth, so the whole cloud is the distance times what this function returns.
    """
    focal = FOCAL_PX * size / FRAME_SIZE
    depth = 1 + landmarks_px[..., 2:] / focal
    return torch.cat([(landmarks_px[..., :2] - size / 2) / focal * depth, depth], dim=-1)


def fit_camera(
    landmarks_px: Float[Tensor, "batch point 3"],
    reference: Float[Tensor, "point 3"],
    weights: Float[Tensor, " point"],
    size: int = FRAME_SIZE,
) -> tuple[Camera, Float[Tensor, "batch point 3"]]:
    """Find the standard camera under which a reference head shows these landmarks, and the mesh it then has.

    The distance is the one unknown that scales the cloud of `unproject_landmarks`, so the similarity to the
    reference gives rotation, translation and distance at once and nothing has to be iterated.

    Args:
        landmarks_px: Landmarks of the size x size crop; x right, y down, z away from the camera, all in px.
        reference: Where the points lie on the average head, in head space.
        weights: How much each point counts for the pose; 0 for points that speech and expression move.
        size: Side of the crop in px.

    Returns:
        The cameras, and meshes in head space that project exactly to the landmarks' x and y.
    """
    cloud = unproject_landmarks(landmarks_px.double(), size)
    scale, rotation, translation = fit_similarity(reference.double(), cloud, weights.double())
    distance = 1 / scale
    translation = translation * distance[:, None]
    mesh = (cloud * distance[:, None, None] - translation[:, None]) @ rotation
    dtype = landmarks_px.dtype
    return Camera.from_pose(rotation.to(dtype), translation.to(dtype), size), mesh.to(dtype)
