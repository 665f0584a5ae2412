"""Expression: a smile in the photo relaxes while the person speaks.

The photo's own mouth counts as the person's neutral one, so somebody who beams would speak beaming, with lips stretched
thin wherever they close. How much of a smile there is shows in the corners of the mouth, which stand higher over the
middle of the lips than in other people's mouths.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.smoothstep import smoothstep
from sdtalk.speech.audio import FRAME_RATE_HZ
from sdtalk.tracking.face_model import GAP_LOWER, GAP_UPPER, FaceModel

MOUTH_CORNERS = [61, 291]
"""On the outer line of the lips."""

USUAL_LIFT = -0.002
"""Height of the corners over the middle between the lips, mouth closed: mean over 122 clips of speakers, head-space
units (0.2 m)."""
LOOKS = 0.006
"""Standard deviation of that from clip to clip: so much more is still the person's looks and no smile."""
BROADEST_SMILE = 0.03
"""What is relaxed at most: the shapes of the mouth were learned from speech and do not reach farther."""

SMILE = (74.0, 141.0, -134.0, -102.0)
"""Shape coefficients per unit of lift, as they go with it within the clips (regression over 20,205 frames), in the
proportion that makes the lift 1."""

RELAXING_SECONDS = 0.8
"""The smile begins to go so long before the first word, and is gone with it."""


def smile_lift(mesh: Float[Tensor, "one 478 3"]) -> float:
    """How far the corners of the mouth stand higher than looks alone explain, head-space units; 0 for no smile.

    Args:
        mesh: Face mesh of the photo, in head space.
    """
    face = FaceModel.bundled()
    closed = mesh.cpu() - face.mouth_opening(mesh.cpu())[:, None, None] * face.opening_mode
    middle = closed[:, [GAP_UPPER[1], GAP_LOWER[1]], 1].mean()
    lift = float(closed[:, MOUTH_CORNERS, 1].mean() - middle)
    return min(max(lift - USUAL_LIFT - LOOKS, 0.0), BROADEST_SMILE)


def relaxed(
    code: Float[Tensor, "frames 5"],
    mesh: Float[Tensor, "one 478 3"],
    level: Float[Tensor, " frames"],
    expression: float,
) -> Float[Tensor, "frames 5"]:
    """Mouth codes of a person whose smile goes before the first word, and stays away: no grin comes back in pauses.

    Args:
        code: Mouth codes; the photo's shape counts as neutral.
        mesh: Face mesh of the photo, in head space.
        level: 1 where somebody speaks, 0 in pauses.
        expression: How much of the smile is kept: 1 all of it, 0 nothing.
    """
    smile = smile_lift(mesh) * code.new_tensor(SMILE)
    gone = (1 - expression) * _since_first_word(level)[:, None]
    return torch.cat([code[:, :1], code[:, 1:] - gone * smile], dim=1)


def _since_first_word(level: Float[Tensor, " frames"]) -> Float[Tensor, " frames"]:
    """0 long before the first word, 1 from it on, smooth between; 0 where nobody speaks."""
    spoken = torch.nonzero(level > 0.5)[:, 0]
    if not len(spoken):
        return torch.zeros_like(level)
    until = (spoken[0] - torch.arange(len(level))) / (RELAXING_SECONDS * FRAME_RATE_HZ)
    return smoothstep(1 - until.clamp(0, 1))
