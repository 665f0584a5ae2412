"""Motion field: hash features, gated audio and eye codes, an MLP to Gaussian offsets (paper section 3.2).

The coarse field moves the visible Gaussians, the fine field the completion Gaussians; both are this class. Without a
fine field (an ablation of the paper) the coarse one moves them all.
"""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdtalk.gaussians import DELTA_CHANNELS, GaussianDelta
from sdtalk.motion.hash_encoding import TriplaneHashEncoding

BLOCK = 2048
"""Points worked on at once where no gradient is wanted: what lies between two layers stays in the processor's cache."""


@dataclass(frozen=True)
class PointCode:
    """What the field needs of its points; they stay while a person talks, so computed once per person.

    Attributes:
        position: Hash features.
        hidden: What the first layer makes of these alone.
        audio_gate: How far each number of an audio code counts.
        eye_gate: How far each number of an encoded eye state counts.
    """

    position: Float[Tensor, "batch point code"]
    hidden: Float[Tensor, "batch point hidden"]
    audio_gate: Float[Tensor, "batch point audio"]
    eye_gate: Float[Tensor, "batch point eye"]

    def __getitem__(self, points: slice | Tensor) -> "PointCode":
        """Some of the points."""
        return PointCode(*(getattr(self, f.name)[:, points] for f in fields(self)))

    def __len__(self) -> int:
        return self.position.shape[1]


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
        hidden = position @ self._first_weights[0].T
        return PointCode(position, hidden, self.audio_gate(position), self.eye_gate(position))

    @property
    def _first_weights(self) -> tuple[Tensor, ...]:
        """Weights of the first layer for hash features, audio code and eye code; it is linear in each."""
        weight, gates = self.mlp[0].get_parameter("weight"), [self.audio_gate[-1], self.eye_gate[-1]]
        audio, eye = (len(gate.get_parameter("weight")) for gate in gates)
        return weight.split([weight.shape[1] - audio - eye, audio, eye], dim=1)

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
        if eyes.device.type != "cpu":
            return GaussianDelta.of(self.by_small_weights(points, audio, eyes))
        several_people = len(points.position) > 1
        if several_people or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return GaussianDelta.of(self._network(points, audio, eyes))
        blocks = [slice(i, i + BLOCK) for i in range(0, len(points), BLOCK)]
        one_by_one = [
            torch.cat([self._network(points[b], *frame) for b in blocks], dim=1)
            for frame in zip(audio.split(1), eyes.split(1), strict=True)
        ]
        return GaussianDelta.of(torch.cat(one_by_one))

    def _network(self, points: PointCode, audio: Tensor, eyes: Tensor) -> Float[Tensor, "frame point 11"]:
        """Offsets, of eye states already encoded."""
        _, audio_weight, eye_weight = self._first_weights
        hidden = (
            points.hidden
            + (points.audio_gate * audio[:, None]) @ audio_weight.T
            + (points.eye_gate * eyes[:, None]) @ eye_weight.T
        )
        return self.mlp[1:](hidden).expand(len(audio), -1, -1)

    def by_small_weights(
        self, points: PointCode, audio: Float[Tensor, "frame audio"], eyes: Float[Tensor, "frame eye"]
    ) -> Float[Tensor, "frame point 11"]:
        """Offsets as a GPU computes them: codes scale the first layer's weights, not the gates of every point.

        So nothing of the size frames x points x codes is made, which would be most of the memory that is moved.

        Args:
            points: As for `forward`.
            audio: As for `forward`.
            eyes: Eye states, already encoded.
        """
        _, audio_weight, eye_weight = self._first_weights
        frames = len(audio)
        hidden = points.hidden.expand(frames, -1, -1)
        for gate, weight, code in (
            (points.audio_gate, audio_weight, audio),
            (points.eye_gate, eye_weight, eyes),
        ):
            hidden = torch.baddbmm(hidden, gate.expand(frames, -1, -1), (weight * code[:, None]).mT)
        return self.mlp[1:](hidden)


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
