"""Mouth codes that do not come from the sound: followed from a video."""

import torch
from jaxtyping import Float
from torch import Tensor


def followed_mouth(
    driver: Float[Tensor, "driver 5"], source: Float[Tensor, "1 5"] | None
) -> Float[Tensor, "driver 5"]:
    """Mouth codes of a video as a head made of a photo knows them: the photo's own shape counts as neutral.

    Args:
        driver: As `FaceModel.mouth_code` measures them: an absolute opening, and shapes with the person's looks.
        source: The same of the photo, where it shows the person of the video; None: the video's mean is neutral.
    """
    neutral = driver.mean(0, keepdim=True) if source is None else source
    return torch.cat([driver[:, :1], driver[:, 1:] - neutral[:, 1:]], dim=1)
