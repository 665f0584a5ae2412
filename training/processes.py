"""Processes that work together: waiting for each other, also without a GPU on a machine that has one."""

import torch
from accelerate import PartialState


def wait_for_all() -> None:
    """Return when all processes have come here.

    Accelerate's own waiting names the GPU of a process's number even where the processes compute on the CPU
    (ACCELERATE_USE_CPU): with fewer GPUs than processes it fails.
    """
    state = PartialState()
    if state.use_distributed and state.device.type == "cpu":
        torch.distributed.barrier()
    else:
        state.wait_for_everyone()
