"""Audio encoders of mini: small convolutional networks from what a video frame hears to its mouth code."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from sdtalk.config import HEAD_MEMBERS

WHISPER_WIDTH = 512
"""Channels of the features that `WhisperHead` hears, see `sdtalk.speech.whisper`."""

LARGEST_FEATURE = 5.0
"""Standardised features are limited to this: rare sounds must not throw the mouth about."""


class Residual(nn.Module):
    """Adds what a convolution of three neighbours says; two frames shorter than its input."""

    def __init__(self, width: int, dropout: float, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3, groups=groups)
        self.norm = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "batch width time"]) -> Float[Tensor, "batch width shorter"]:
        """Valid convolution, so that a window and a whole clip give the same numbers."""
        return x[..., 1:-1] + self.dropout(gelu(self.norm(self.conv(x))))


class MouthEncoder(nn.Module):
    """From what a video frame hears to its mouth code; the stem is what its subclasses add.

    A mouth code is (opening, shape coefficients...), `FaceModel.mouth_code`: the opening is absolute, about 0 with
    closed lips and 1 wide open; the coefficients are relative to the person's own rest. A closure output pulls the
    opening to zero: least squares alone never closes the lips.

    Least squares also moves too little what it is unsure of, so buffers hold a mean and a gain per number,
    measured on held-out people by `training/mini/train_lips.py`: the spread of real speech comes out.

    Args:
        stem: From features in time to `width` channels of 25 frames a second, six frames more than are asked for.
        width: Channels.
        code_width: Numbers in a mouth code.
        dropout: While training.
        members: Networks side by side, each with its share of the channels, whose mean is taken.
    """

    def __init__(
        self, stem: nn.Module, width: int, code_width: int, dropout: float, members: int = 1
    ) -> None:
        super().__init__()
        self.stem, self.members = stem, members
        self.blocks = nn.Sequential(*(Residual(width, dropout, members) for _ in range(3)))
        self.head = nn.Conv1d(width, members * code_width, 1, groups=members)
        self.closure = nn.Conv1d(width, members, 1, groups=members)
        self.register_buffer("code_mean", torch.zeros(code_width))
        self.register_buffer("code_gain", torch.ones(code_width))
        self.code_mean: Tensor
        self.code_gain: Tensor

    @property
    def code_width(self) -> int:
        """Numbers in a mouth code."""
        return len(self.code_mean)

    def hear(self, sound: Float[Tensor, "batch channel time"]) -> Float[Tensor, "batch width frames"]:
        """What is made of the features of each video frame that lies whole in the sound."""
        return self.blocks(self.stem(sound))

    def by_member(
        self, heard: Float[Tensor, "batch width frames"]
    ) -> tuple[Float[Tensor, "batch member code frames"], Float[Tensor, "batch member frames"]]:
        """Each member's numbers before mean and gain, and its log odds that the lips touch."""
        return self.head(heard).unflatten(1, (self.members, -1)), self.closure(heard)

    def raw(
        self, heard: Float[Tensor, "batch width frames"]
    ) -> tuple[Float[Tensor, "batch code frames"], Float[Tensor, "batch frames"]]:
        """Numbers before mean and gain, and log odds that the lips touch."""
        numbers, touch = self.by_member(heard)
        return numbers.mean(1), touch.mean(1)

    def code_of(self, heard: Float[Tensor, "batch width frames"]) -> Float[Tensor, "batch frames code"]:
        """Mouth codes: mean and gain applied, lips pulled together where the closure output says so."""
        numbers, touch = self.raw(heard)
        code = self.code_mean[:, None] + self.code_gain[:, None] * numbers
        opening, shape = code[:, :1].clamp(min=0), code[:, 1:]
        return torch.cat([opening * (1 - _sureness(touch[:, None])), shape], dim=1).transpose(1, 2)

    def forward(self, windows: Float[Tensor, "frames step channel"]) -> Float[Tensor, "frames code"]:
        """Mouth code of each window."""
        return self.code_of(self.hear(windows.transpose(1, 2)))[:, 0]

    def forward_clip(self, rows: Float[Tensor, "row channel"]) -> Float[Tensor, "frames code"]:
        """The same for a whole clip, at a fraction of the work: windows overlap.

        Args:
            rows: From `sdtalk.speech.audio.padded_mels`, or `WhisperFeatures.padded`.
        """
        return self.code_of(self.hear(rows.T[None]))[0]


class AudioEncoder(MouthEncoder):
    """Hears log-mel windows (37 steps, +-180 ms); models made before SDTalk 0.2 do.

    Two strided convolutions bring 100 mel frames a second to 25, three residual ones widen the view to one
    window: 5 + 4 * 2 + 3 * 8 = 37.
    """

    def __init__(
        self, mel_bins: int = 80, width: int = 128, code_width: int = 5, dropout: float = 0.2
    ) -> None:
        stem = nn.Sequential(
            *(nn.Conv1d(mel_bins, width, 5, stride=2), nn.BatchNorm1d(width), nn.GELU(), nn.Dropout(dropout)),
            *(nn.Conv1d(width, width, 5, stride=2), nn.BatchNorm1d(width), nn.GELU(), nn.Dropout(dropout)),
        )
        super().__init__(stem, width, code_width, dropout)


class Standardised(nn.Module):
    """Features minus their mean, by their standard deviation, limited; both are constants of the training clips."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        self.mean: Tensor
        self.deviation: Tensor

    def forward(self, x: Float[Tensor, "batch channel time"]) -> Float[Tensor, "batch channel time"]:
        """Channel by channel."""
        x = (x - self.mean[:, None]) / self.deviation[:, None]
        return x.clamp(-LARGEST_FEATURE, LARGEST_FEATURE)


class WhisperHead(MouthEncoder):
    """Hears windows of 17 Whisper features (+-160 ms): three small networks side by side, whose mean is taken.

    A strided convolution brings 50 features a second to 25, three residual ones widen the view to one window:
    5 + 3 * 4 = 17. Whole channels of the features are dropped while training: minutes of video are few.

    Args:
        width: Channels of all members together.
        code_width: Numbers in a mouth code.
        dropout: While training.
        members: Networks side by side; they divide the width.
        channels: Of the features.
    """

    def __init__(
        self,
        width: int = HEAD_MEMBERS * 128,
        code_width: int = 5,
        dropout: float = 0.2,
        members: int = HEAD_MEMBERS,
        channels: int = WHISPER_WIDTH,
    ) -> None:
        narrowing = nn.Conv1d(width, width, 5, stride=2, groups=members)
        stem = nn.Sequential(
            *(Standardised(channels), nn.Dropout1d(dropout)),
            *(nn.Conv1d(channels, width, 1), nn.BatchNorm1d(width), nn.GELU(), nn.Dropout(dropout)),
            *(narrowing, nn.BatchNorm1d(width), nn.GELU(), nn.Dropout(dropout)),
        )
        super().__init__(stem, width, code_width, dropout, members)

    @property
    def standardised(self) -> Standardised:
        """The layer that holds the features' mean and deviation."""
        layer = next(self.stem.children())
        assert isinstance(layer, Standardised)
        return layer


def _sureness(log_odds: Tensor) -> Tensor:
    """How sure the lips are to touch: 0 below even odds, 1 when certain, smooth between."""
    pull = (2 * torch.sigmoid(log_odds) - 1).clamp(min=0)
    return pull * (2 - pull)
