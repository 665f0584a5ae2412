"""Motion field: hash features, gated audio and eye codes, an MLP to Gaussian offsets (paper section 3.2).

The coarse field moves the visible Gaussians, the fine field the completion Gaussians; both are this class. Without a
fine field (an ablation of the paper) the coarse one moves them all.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdtalk.gaussians import GaussianDelta
from sdtalk.motion.hash_encoding import TriplaneHashEncoding

DELTA_CHANNELS = 11  # means 3, quats 4, scales 3, opacity 1


@dataclass(frozen=True)
class PointCode:
    """What the field needs of its points; they stay while a person talks, so computed once per person."""

    position: Float[Tensor, "batch point code"]
    audio_gate: Float[Tensor, "batch point audio"]
    eye_gate: Float[Tensor, "batch point eye"]


def _mlp(widths: list[int], activation: nn.Module, bias: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(inputs, outputs, bias=bias), activation]
    return nn.Sequential(*layers[:-1])


class MotionField(nn.Module):
    """Hash features, gated audio code and gated eye code -> offsets of means, quats, scales and opacities."""

    def __init__(
        self,
        encoding: TriplaneHashEncoding,
        audio_width: int = 64,
        eye_width: int = 6,
        hidden_width: int = 64,
        gate_widths: tuple[int, int] = (32, 16),
        eye_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.encoding, self.eye_scale = encoding, eye_scale
        self.eye_encoder = _mlp(
            [eye_width, 2 * eye_width, 2 * eye_width, eye_width], nn.LeakyReLU(0.02), True
        )
        self.audio_gate = _mlp([encoding.width, gate_widths[0], audio_width], nn.ReLU(), False)
        self.eye_gate = _mlp([encoding.width, gate_widths[1], eye_width], nn.ReLU(), False)
        inputs = encoding.width + audio_width + eye_width
        self.mlp = _mlp([inputs, hidden_width, hidden_width, DELTA_CHANNELS], nn.ReLU(), False)
        for parameter in self.mlp[-1].parameters():
            nn.init.zeros_(parameter)  # an untrained field leaves the head alone

    def encode(self, positions: Float[Tensor, "batch point 3"]) -> PointCode:
        """Encode canonical positions and compute their gates; once per person."""
        position = self.encoding(positions)
        return PointCode(position, self.audio_gate(position), self.eye_gate(position))

    def forward(
        self, points: PointCode, audio: Float[Tensor, "frame audio"], eyes: Float[Tensor, "frame eye"]
    ) -> GaussianDelta:
        """Offsets of every point at every frame.

        Args:
            points: From `encode`; batch is 1 (one person, many frames) or the number of frames.
            audio: Audio code of each frame.
            eyes: Eye state of each frame.
        """
        eyes = self.eye_encoder(self.eye_scale * eyes)
        frames, count = audio.shape[0], points.position.shape[1]
        first, rest = self.mlp[0], self.mlp[1:]
        # the first layer is linear, so the person's own share needs no copy per frame
        widths = [points.position.shape[-1], audio.shape[-1], eyes.shape[-1]]
        position_weight, audio_weight, eye_weight = torch.split(first.get_parameter("weight"), widths, dim=1)
        hidden = (
            points.position @ position_weight.T
            + (points.audio_gate * audio[:, None]) @ audio_weight.T
            + (points.eye_gate * eyes[:, None]) @ eye_weight.T
        )
        hidden = rest(hidden).expand(frames, count, DELTA_CHANNELS)
        return GaussianDelta(
            means=hidden[..., 0:3],
            quats=hidden[..., 3:7],
            scales=hidden[..., 7:10],
            opacities=hidden[..., 10],
        )


def scaled_difference(after: GaussianDelta, before: GaussianDelta, weight: Tensor) -> GaussianDelta:
    """Offsets that lead from one facial state to another, weighted per Gaussian.

    Args:
        after: Offsets from the canonical face to the wanted state.
        before: Offsets from the canonical face to the state the photo shows.
        weight: [batch, point], 0 (never moves) to 1.
    """
    return GaussianDelta(
        means=(after.means - before.means) * weight[..., None],
        quats=(after.quats - before.quats) * weight[..., None],
        scales=(after.scales - before.scales) * weight[..., None],
        opacities=(after.opacities - before.opacities) * weight,
    )
