"""Image encoder of base: DINOv2, and a feature pyramid that spreads its tokens over the lifting plane."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

PATCH_PX = 14
LEVELS = 4
"""How many of the last blocks the pyramid reads, from the finest map to the coarsest."""

RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which DINOv2 was trained with


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions around a skip, each after a ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "batch width rows columns"]
    ) -> Float[Tensor, "batch width rows columns"]:
        """Refine a map."""
        return x + self.second(F.relu(self.first(F.relu(x))))


class Fusion(nn.Module):
    """Adds a finer map to what came from the coarser ones, refines the sum and enlarges it."""

    def __init__(self, width: int, has_finer: bool) -> None:
        super().__init__()
        self.finer_unit = ResidualUnit(width) if has_finer else None
        self.unit = ResidualUnit(width)
        self.out = nn.Conv2d(width, width, 1)

    def forward(
        self,
        x: Float[Tensor, "batch width rows columns"],
        size: tuple[int, int],
        finer: Float[Tensor, "batch width rows columns"] | None = None,
    ) -> Float[Tensor, "batch width rows_out columns_out"]:
        """Fuse; `finer` is of the size of `x`, and given exactly where the block was built for it."""
        assert (finer is not None) == (self.finer_unit is not None)
        if self.finer_unit is not None:
            x = x + self.finer_unit(finer)
        # the published code enlarges first; the two commute, and a 1x1 convolution of the small map costs a quarter
        return F.interpolate(self.out(self.unit(x)), size=size, mode="bilinear", align_corners=True)


class Pyramid(nn.Module):
    """Token maps of four blocks -> one map, eight times as fine (the design of DPT, Ranftl et al. 2021).

    Each map also sees the picture itself, reduced to its size.
    """

    def __init__(self, token_width: int, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 4 * width]
        self.projections = nn.ModuleList(nn.Conv2d(token_width, w, 1) for w in widths)
        self.resizes = nn.ModuleList(
            [
                nn.ConvTranspose2d(widths[0], widths[0], 4, stride=4),
                nn.ConvTranspose2d(widths[1], widths[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(widths[3], widths[3], 3, stride=2, padding=1),
            ]
        )
        self.mixers = nn.ModuleList(nn.Conv2d(3 + w, width, 3, padding=1, bias=False) for w in widths)
        self.fusions = nn.ModuleList(Fusion(width, has_finer=i > 0) for i in range(LEVELS))
        self.out = nn.Conv2d(width, width, 3, padding=1)

    def forward(
        self,
        token_maps: list[Float[Tensor, "batch tokens rows columns"]],
        rgb: Float[Tensor, "batch 3 height width"],
    ) -> Float[Tensor, "batch local fine_rows fine_columns"]:
        """Fuse the four token maps, from the earliest block (finest map) to the last, with the normalised RGB."""
        maps = []
        for tokens, project, resize, mix in zip(
            token_maps, self.projections, self.resizes, self.mixers, strict=True
        ):
            x = resize(project(tokens))
            colours = F.interpolate(rgb, size=x.shape[2:], mode="bilinear", antialias=True)
            maps.append(mix(torch.cat([colours.to(x.dtype), x], dim=1)))
        coarsest, *finer_maps = reversed(maps)
        rows, columns = maps[0].shape[2:]
        sizes = [tuple(finer.shape[2:]) for finer in finer_maps] + [(2 * rows, 2 * columns)]
        x = self.fusions[0](coarsest, sizes[0])
        for fuse, size, finer in zip(self.fusions[1:], sizes[1:], finer_maps, strict=True):
            x = fuse(x, size, finer)
        return self.out(x)


class DinoEncoder(nn.Module):
    """Portrait -> local features on the lifting plane and one global feature (paper section 3.1; reference Q4, Q12).

    Args:
        width: Numbers per token of the vision transformer.
        depth: Its blocks, at least four.
        heads: Its attention heads.
        picture_px: Side of the pictures, a multiple of 14.
        pyramid_width: Channels of the local features.
        first_patch_as_global: Take the token of the top left patch for the global feature, as the published code
            does, instead of the class token.

    Raises:
        ValueError: `picture_px` is no multiple of 14, or `depth` below four.
    """

    rgb_mean: Float[Tensor, "3 1 1"]
    rgb_std: Float[Tensor, "3 1 1"]

    def __init__(
        self,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        picture_px: int = 518,
        pyramid_width: int = 256,
        first_patch_as_global: bool = False,
    ) -> None:
        super().__init__()
        if picture_px % PATCH_PX or depth < LEVELS:
            raise ValueError(
                f"{picture_px} px and {depth} blocks: pictures need a side that is a multiple of {PATCH_PX} px,"
                f" the pyramid at least {LEVELS} blocks"
            )
        self.picture_px, self.first_patch_as_global = picture_px, first_patch_as_global
        self.backbone = Dinov2Model(
            Dinov2Config(
                hidden_size=width,
                num_hidden_layers=depth,
                num_attention_heads=heads,
                image_size=picture_px,
                patch_size=PATCH_PX,
                use_mask_token=False,
            )
        )
        keep_names(self.backbone)
        self.pyramid = Pyramid(width, pyramid_width)
        self.register_buffer("rgb_mean", torch.tensor(RGB_MEAN)[:, None, None], persistent=False)
        self.register_buffer("rgb_std", torch.tensor(RGB_STD)[:, None, None], persistent=False)

    def forward(
        self, image: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch local size size"], Float[Tensor, "batch global"]]:
        """Encode pictures.

        Args:
            image: RGB, 0 to 1, `picture_px` high and wide.

        Returns:
            The local features, 8 / 14 as high and wide as the picture, and the global feature.

        Raises:
            ValueError: The picture has another size.
        """
        if image.shape[2:] != (self.picture_px, self.picture_px):
            raise ValueError(
                f"The encoder was built for pictures of {self.picture_px}x{self.picture_px} px,"
                f" not of {image.shape[3]}x{image.shape[2]} px (width x height)"
            )
        rgb = (image - self.rgb_mean) / self.rgb_std
        blocks = self.backbone(rgb, output_hidden_states=True).hidden_states[-LEVELS:]
        tokens = [self.backbone.layernorm(block) for block in blocks]  # class token, patches row by row
        grid = (self.picture_px // PATCH_PX,) * 2
        token_maps = [t[:, 1:].transpose(1, 2).unflatten(2, grid) for t in tokens]
        # the pyramid shrinks the picture with antialiasing, which is not implemented for bfloat16 on a CPU
        return self.pyramid(token_maps, rgb.float()), tokens[-1][:, int(self.first_patch_as_global)]


_OLDER_NAMES = {
    "attention.attention.query.": "attention.q_proj.",
    "attention.attention.key.": "attention.k_proj.",
    "attention.attention.value.": "attention.v_proj.",
    "attention.output.dense.": "attention.o_proj.",
}
"""What transformers called some weights before 5.20."""


def keep_names(backbone: nn.Module) -> None:
    """Let the weights have the same names in checkpoints whatever the version of transformers; loading takes both."""
    backbone.register_state_dict_post_hook(_with_newer_names)
    backbone.register_load_state_dict_pre_hook(_with_own_names)


def _newer(name: str) -> str:
    for older, newer in _OLDER_NAMES.items():
        name = name.replace(older, newer)
    return name


def _rename(state: dict[str, Tensor], prefix: str, names: Callable[[str], str]) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        state[prefix + names(key.removeprefix(prefix))] = state.pop(key)


def _with_newer_names(backbone: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    _rename(state, prefix, _newer)


def _with_own_names(backbone: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    own = {_newer(name): name for name, _ in backbone.named_parameters()}
    _rename(state, prefix, lambda name: own.get(_newer(name), name))
