"""EMA: exponential moving average of the weights, which is what a run saves as its model."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def ema_model(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of a model that follows it by `update_parameters`; frozen parts stay equal.

    In the first steps the average forgets faster, (1 + n) / (10 + n), so that short runs are not held at their start.

    Args:
        model: What is trained.
        decay: Share of the average that is kept at a step.
    """

    @torch.no_grad()
    def follow(average: list[Tensor], current: list[Tensor], steps: Tensor | int) -> None:
        n = int(steps)
        kept = min(decay, (1 + n) / (10 + n))
        torch._foreach_lerp_(average, current, 1 - kept)

    return AveragedModel(model, multi_avg_fn=follow).requires_grad_(False).eval()
