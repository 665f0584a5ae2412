"""Tests of the loss functions: lifting and lip weights by hand-made cases."""

import torch

from training.losses import lifting_loss, lip_weight


def test_lip_weight_covers_the_lips_alone() -> None:
    weight = lip_weight(torch.tensor([[[10.0, 20.0], [30.0, 28.0]]]), 64, 5.0)[0, 0]
    assert weight[24, 20] == 5 and weight[0, 0] == 1 and weight[40, 20] == 1


def test_lifting_loss_is_the_squared_distance_to_the_nearest_point() -> None:
    mesh, lifted = torch.zeros(1, 3, 3), torch.tensor([[[0.0, 0.0, 2.0], [0.0, 1.0, 0.0]]])
    assert lifting_loss(mesh, lifted) == 1
