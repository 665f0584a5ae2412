"""Audio encoder of mini: a small convolutional network from log-mel windows to mouth codes."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Residual(nn.Module):
    """Adds what a convolution of three neighbours says; two frames shorter than its input."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3)
        self.norm = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "batch width time"]) -> Float[Tensor, "batch width shorter"]:
        """Valid convolution, so that a window and a whole clip give the same numbers."""
        return x[..., 1:-1] + self.dropout(nn.functional.gelu(self.norm(self.conv(x))))


class AudioEncoder(nn.Module):
    """From what a video frame hears (37 mel frames, +-180 ms) to its mouth code.

    Two strided convolutions bring 100 mel frames a second to 25, three residual ones widen the view to one
    window: 5 + 4 * 2 + 3 * 8 = 37. A mouth code is (opening, shape coefficients...), `FaceModel.mouth_code`:
    the opening is absolute, about 0 with closed lips and 1 wide open; the coefficients are relative to the
    person's own rest. A closure output pulls the opening to zero: least squares alone never closes the lips.

    Least squares also moves too little what it is unsure of, so buffers hold a mean and a gain per number,
    measured on held-out people by `training/mini/train_lips.py`: the spread of real speech comes out.
    """

    def __init__(
        self, mel_bins: int = 80, width: int = 128, code_width: int = 5, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *(nn.Conv1d(mel_bins, width, 5, stride=2), nn.BatchNorm1d(width), nn.GELU(), nn.Dropout(dropout)),
            *(nn.Conv1d(width, width, 5, stride=2), nn.BatchNorm1d(width), nn.GELU(), nn.Dropout(dropout)),
        )
        self.blocks = nn.Sequential(*(Residual(width, dropout) for _ in range(3)))
        self.head = nn.Conv1d(width, code_width, 1)
        self.closure = nn.Conv1d(width, 1, 1)
        self.register_buffer("code_mean", torch.zeros(code_width))
        self.register_buffer("code_gain", torch.ones(code_width))
        self.code_mean: Tensor
        self.code_gain: Tensor

    @property
    def code_width(self) -> int:
        """Numbers in a mouth code."""
        return self.head.out_channels

    def hear(self, mels: Float[Tensor, "batch bins time"]) -> Float[Tensor, "batch width frames"]:
        """Features of each video frame that lies whole in the sound; time = 4 frames + 33."""
        return self.blocks(self.stem(mels))

    def code_of(self, features: Float[Tensor, "batch width frames"]) -> Float[Tensor, "batch frames code"]:
        """Mouth codes: mean and gain applied, lips pulled together where the closure output says so."""
        code = self.code_mean[:, None] + self.code_gain[:, None] * self.head(features)
        opening, shape = code[:, :1].clamp(min=0), code[:, 1:]
        return torch.cat([opening * (1 - self.closed(features)), shape], dim=1).transpose(1, 2)

    def closed(self, features: Float[Tensor, "batch width frames"]) -> Float[Tensor, "batch 1 frames"]:
        """How sure the lips are to touch: 0 below even odds, 1 when certain, smooth between."""
        pull = (2 * torch.sigmoid(self.closure(features)) - 1).clamp(min=0)
        return pull * (2 - pull)

    def forward(self, windows: Float[Tensor, "frames 37 bins"]) -> Float[Tensor, "frames code"]:
        """Mouth code of each window, see `sdtalk.speech.audio.speech_windows`."""
        return self.code_of(self.hear(windows.transpose(1, 2)))[:, 0]

    def forward_clip(self, mels: Float[Tensor, "padded bins"]) -> Float[Tensor, "frames code"]:
        """The same for a whole clip of `sdtalk.speech.audio.padded_mels` at a ninth of the work: windows overlap."""
        return self.code_of(self.hear(mels.T[None]))[0]
