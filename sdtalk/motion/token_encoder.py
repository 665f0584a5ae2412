"""Token encoder: HuBERT tokens to the audio code of a video frame (paper section 3.2; reference Q11)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

HALVINGS = 4  # 1024 -> 512 -> 256 -> 128 -> 64 in the paper's size
SLOPE = 0.02  # of the leaky ReLU


class TokenEncoder(nn.Module):
    """One code for what a frame hears: every token through an MLP, then a weighted mean over the tokens.

    The weights come from the token codes: one score a token, the scores mixed with one another, softmax. Each
    motion field has an encoder of its own.

    Args:
        token_width: Channels of a token, 1024 for HuBERT-large; hidden layers halve it four times.
        code_width: Channels of the audio code; the hidden layers of the score halve it four times.
        window: Tokens that a frame hears; 16 are 320 ms.
    """

    def __init__(self, token_width: int = 1024, code_width: int = 64, window: int = 16) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            *_leaky_layers(token_width), nn.Linear(_halved(token_width, HALVINGS), code_width)
        )
        self.score = nn.Sequential(
            *_leaky_layers(code_width), nn.Linear(_halved(code_width, HALVINGS), 1), nn.LeakyReLU(SLOPE)
        )
        self.mix = nn.Linear(window, window)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, windows: Float[Tensor, "frame token width"]) -> Float[Tensor, "frame code"]:
        """Audio code of each frame.

        Args:
            windows: The tokens each frame hears, in order of time; from `sdtalk.speech.hubert`.
        """
        codes = self.mlp(windows)
        return (self.weights(codes)[..., None] * codes).sum(dim=1)

    def weights(self, codes: Float[Tensor, "frame token code"]) -> Float[Tensor, "frame token"]:
        """What each token contributes to its frame; a frame's weights sum to one."""
        return self.mix(self.score(codes)[..., 0]).softmax(dim=-1)


class TokenEncoders(nn.Module):
    """The encoders of the motion fields, sizes as in `TokenEncoder`: windows in, one code for each field out."""

    def __init__(
        self, token_width: int = 1024, code_width: int = 64, window: int = 16, fine: bool = True
    ) -> None:
        super().__init__()
        self.coarse = TokenEncoder(token_width, code_width, window)
        if fine:
            self.fine = TokenEncoder(token_width, code_width, window)

    def forward(self, windows: Float[Tensor, "frame token width"]) -> Float[Tensor, "frame field code"]:
        """Audio codes of each frame: the coarse field's, then, where there is one, the fine field's."""
        return torch.stack([encoder(windows) for encoder in self.children()], dim=1)


def _halved(width: int, times: int) -> int:
    return max(1, width // 2**times)


def _leaky_layers(width: int) -> list[nn.Module]:
    """Linear layers that halve the width again and again, each with its leaky ReLU."""
    layers: list[nn.Module] = []
    for times in range(HALVINGS):
        layers += [nn.Linear(_halved(width, times), _halved(width, times + 1)), nn.LeakyReLU(SLOPE)]
    return layers
