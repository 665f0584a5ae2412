"""StyleUNet, the neural renderer of base: a U-Net that steers a StyleGAN2 decoder (reference Q6, Q13).

features ─► first ─► downs ─► bottom ─► to_style ─► one style code
                       │         └─► ups (with skips from the downs) ─► a scale and a shift for every size
                       └──────────────────┘                                   │
constant 4 x 4 ─► style convolutions, doubled to 8, 16, ... 512 ◄─────────────┘ ─► sum of RGB at every size ─► sigmoid
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sdtalk.rendering.modulated_conv import EPSILON, ModulatedConv

SMALLEST = 4
"""Side of the decoder's constant input, px."""

MAPPING_LAYERS = 8
MOST_WIDTHS = 16
"""The encoder's channels double with every halving, up to so many times its width; the decoder has twice as many."""

LEAK = 0.2
NOISES = ("none", "stored", "fresh")


class ResidualBlock(nn.Module):
    """Two convolutions, a bilinear change of size between them, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.conv_in = nn.Conv2d(inputs, inputs, 3, padding=1)
        self.conv_out = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(
        self, x: Float[Tensor, "batch inputs rows columns"]
    ) -> Float[Tensor, "batch outputs new_rows new_columns"]:
        """Refine and resize."""
        inner = _resized(_leaky(self.conv_in(x)), self.scale)
        inner = _leaky(self.conv_out(inner))
        # a resize and a convolution of single pixels may change places: pixels are cheapest where they are fewest
        enlarges = self.scale > 1
        return inner + (
            _resized(self.skip(x), self.scale) if enlarges else self.skip(_resized(x, self.scale))
        )


class StyleConv(nn.Module):
    """Modulated convolution, noise, bias, leaky ReLU."""

    noise: Float[Tensor, "1 1 side side"]

    def __init__(self, inputs: int, outputs: int, side: int, style_width: int, doubles: bool) -> None:
        super().__init__()
        self.doubles = doubles
        self.conv = ModulatedConv(inputs, outputs, 3, style_width, norm=math.sqrt(2))
        self.strength = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(1, outputs, 1, 1))
        self.register_buffer("noise", torch.randn(1, 1, side, side))

    def forward(
        self,
        x: Float[Tensor, "batch inputs rows columns"],
        style: Float[Tensor, "batch style"],
        noise: str,
        maps: Float[Tensor, "batch 1 side side"] | None = None,
    ) -> Float[Tensor, "batch outputs side side"]:
        """One layer of the decoder; `noise` as in `StyleUNet`, `maps`: fresh ones that were drawn before."""
        x = self.conv(x, style, self.bias, _doubled if self.doubles else None)
        if noise == "stored":
            x = x + self.strength * self.noise
        elif noise == "fresh":
            if maps is None:
                maps = torch.randn(len(x), *self.noise.shape[1:], dtype=x.dtype, device=x.device)
            x = x + self.strength * maps.to(x.dtype)
        return _leaky(x)


class ToRGB(nn.Module):
    """RGB of one size, on top of the enlarged RGB of the size before."""

    def __init__(self, inputs: int, style_width: int) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, 3, 1, style_width, norm=None)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(
        self,
        x: Float[Tensor, "batch inputs side side"],
        style: Float[Tensor, "batch style"],
        smaller: Float[Tensor, "batch 3 half half"] | None,
    ) -> Float[Tensor, "batch 3 side side"]:
        """Add this size's share."""
        rgb = self.conv(x, style, self.bias)
        return rgb if smaller is None else rgb + _resized(smaller, 2.0)


class Decoder(nn.Module):
    """StyleGAN2's synthesis, scaled and shifted at every size by what the U-Net found."""

    def __init__(self, channels: list[int], style_width: int) -> None:
        super().__init__()
        self.mapping = nn.ModuleList(nn.Linear(style_width, style_width) for _ in range(MAPPING_LAYERS))
        self.constant = nn.Parameter(torch.randn(1, channels[0], SMALLEST, SMALLEST))
        self.convs = nn.ModuleList([StyleConv(channels[0], channels[0], SMALLEST, style_width, False)])
        self.to_rgb = nn.ModuleList([ToRGB(channels[0], style_width)])
        for level, (coarse, fine) in enumerate(zip(channels[:-1], channels[1:], strict=True)):
            side = SMALLEST * 2 ** (level + 1)
            self.convs.append(StyleConv(coarse, fine, side, style_width, True))
            self.convs.append(StyleConv(fine, fine, side, style_width, False))
            self.to_rgb.append(ToRGB(fine, style_width))

    def forward(
        self,
        code: Float[Tensor, "batch style"],
        conditions: list[tuple[Tensor, Tensor]],
        noise: str,
        maps: Float[Tensor, "batch number"] | None = None,
    ) -> Float[Tensor, "batch 3 side side"]:
        """Style code and (scale, shift) of every size from 8 px on -> RGB before the sigmoid; `maps` as `StyleUNet`."""
        style = code * torch.rsqrt(code.square().mean(1, keepdim=True) + EPSILON)
        for layer in self.mapping:
            style = F.leaky_relu(layer(style), LEAK)
        of_layer = [None] * len(self.convs) if maps is None else self._split(maps)
        x = self.convs[0](self.constant.expand(len(code), -1, -1, -1), style, noise, of_layer[0])
        rgb = self.to_rgb[0](x, style, None)
        for level, (scale, shift) in enumerate(conditions):
            x = torch.addcmul(
                shift, self.convs[2 * level + 1](x, style, noise, of_layer[2 * level + 1]), scale
            )
            x = self.convs[2 * level + 2](x, style, noise, of_layer[2 * level + 2])
            rgb = self.to_rgb[level + 1](x, style, rgb)
        return rgb

    @property
    def map_sizes(self) -> list[int]:
        """Numbers in the noise map of each layer."""
        return [conv.get_buffer("noise").numel() for conv in self.convs]

    def _split(self, maps: Float[Tensor, "batch number"]) -> list[Tensor]:
        """The map of each layer."""
        sizes = self.map_sizes
        return [
            m.unflatten(1, (1, math.isqrt(n), -1)) for m, n in zip(maps.split(sizes, 1), sizes, strict=True)
        ]


class StyleUNet(nn.Module):
    """Feature image -> RGB.

    Fastest, on CPUs at least, in bfloat16 and with `.to(memory_format=torch.channels_last)`.

    Args:
        inputs: Feature channels.
        width: Channels of the encoder at full size.
        style_width: Numbers of the style code.
        size: Side of the image, a power of two of at least 8, px.
        noise: "none"; "stored", the same maps for every frame; or "fresh", new maps for every sample and call, as the
            published code draws them: weights trained so expect it (reference Q6), but it flickers.

    Raises:
        ValueError: There is no such size or noise.
    """

    def __init__(
        self, inputs: int = 32, width: int = 16, style_width: int = 512, size: int = 512, noise: str = "none"
    ) -> None:
        super().__init__()
        if noise not in NOISES:
            raise ValueError(f"the noise must be one of {NOISES}, not {noise!r}")
        self.size, self.noise = size, noise
        halvings = (size // SMALLEST).bit_length() - 1
        if halvings < 1 or size != SMALLEST << halvings:
            raise ValueError(f"the size must be a power of two of at least {2 * SMALLEST}, not {size}")
        sides = range(halvings + 1)  # from full size down to 4 px
        channels = [width * min(2**i, MOST_WIDTHS) for i in sides]
        self.first = nn.Conv2d(inputs, width, 1)
        self.downs = nn.ModuleList(ResidualBlock(channels[i], channels[i + 1], 0.5) for i in sides[:-1])
        self.bottom = nn.Conv2d(channels[-1], channels[-1], 3, padding=1)
        self.to_style = nn.Linear(channels[-1] * SMALLEST**2, style_width)
        rising = channels[::-1]
        self.ups = nn.ModuleList(ResidualBlock(rising[i], rising[i + 1], 2.0) for i in sides[:-1])
        self.scales = nn.ModuleList(_condition(w) for w in rising[1:])
        self.shifts = nn.ModuleList(_condition(w) for w in rising[1:])
        self.decoder = Decoder([2 * w for w in rising], style_width)

    @property
    def noise_numbers(self) -> int:
        """How many random numbers the fresh noise of a frame is made of."""
        return sum(self.decoder.map_sizes)

    def forward(
        self,
        features: Float[Tensor, "batch inputs height width"],
        maps: Float[Tensor, "batch number"] | None = None,
    ) -> Float[Tensor, "batch 3 height width"]:
        """Render.

        Args:
            features: What to render.
            maps: Fresh noise, standard normal, `noise_numbers` a frame; None: it is drawn here. Without a meaning for
                other kinds of noise.

        Raises:
            ValueError: The image has another size than the network.
        """
        if features.shape[2:] != (self.size, self.size):
            found = "x".join(map(str, features.shape[2:]))
            raise ValueError(f"features of {found} px for a renderer of {self.size}x{self.size} px")
        x = _leaky(self.first(features))
        skips = []
        for down in self.downs:
            x = down(x)
            skips.append(x)
        x = _leaky(self.bottom(x))
        code = self.to_style(x.flatten(1))
        conditions = []
        for up, scale, shift in zip(self.ups, self.scales, self.shifts, strict=True):
            x = up(x + skips.pop())
            conditions.append((scale(x), shift(x)))
        return torch.sigmoid(self.decoder(code, conditions, self.noise, maps))


def _condition(width: int) -> nn.Sequential:
    """Features of one size -> a scale or a shift for the decoder's channels."""
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(LEAK), nn.Conv2d(width, 2 * width, 3, padding=1)
    )


def _resized(
    x: Float[Tensor, "batch channel rows columns"], scale: float
) -> Float[Tensor, "batch channel new_rows new_columns"]:
    """Bilinear. On a GPU by faster ways to the same numbers; only one of them has gradients, or can be compiled."""
    if x.is_cuda and not torch.compiler.is_compiling():
        if scale == 0.5:
            return F.avg_pool2d(x, 2)
        if scale == 2 and not torch.is_grad_enabled():
            from sdtalk.rendering.triton.resizing import doubled

            return doubled(x)
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)


def _doubled(x: Tensor) -> Tensor:
    return _resized(x, 2.0)


def _leaky(x: Tensor) -> Tensor:
    """Leaky ReLU in place: for what a layer has just made and nothing else reads."""
    return F.leaky_relu(x, LEAK, inplace=True)
