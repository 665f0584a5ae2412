"""CPU kernel that moves a head's Gaussians to a frame's state and pose, in one pass over what is kept of them."""

import math

import numpy as np

from sdtalk.rendering.cpu.kernel import fast_kernel


@fast_kernel
def place(first, last, head, offsets, rest_offsets, small, rest_in_head, least_scale, placed):
    """Move Gaussians first:last; the same as `SDTalk.animate` and `posed` do, for one frame.

    Args:
        first: Start of the range.
        last: End of the range.
        head: (means [N, 3], quats [N, 4], scales [N, 3], opacities [N], head_weight [N], brows [N, 3], support [M]);
            the first M Gaussians are those that the fields move.
        offsets: [M, 11] of means, quats, scales, opacities in the frame's state.
        rest_offsets: [M, 11] in the photo's.
        small: (rise of the brows, breath [3]) the second for what does not follow the head.
        rest_in_head: [3, 4] where the photo has things, in the frame's head space.
        least_scale: Scales do not fall below.
        placed: (means, quats, scales, opacities) out; of all but the first M the last three are not touched.
    """
    means, quats, scales, opacities, head_weight, brows, support = head
    new_means, new_quats, new_scales, new_opacities = placed
    rise, breath = small
    moving = len(support)
    zero, one = np.float32(0), np.float32(1)
    for g in range(first, last):
        stays = one - head_weight[g]
        x = means[g, 0] + rise * brows[g, 0] + stays * breath[0]
        y = means[g, 1] + rise * brows[g, 1] + stays * breath[1]
        z = means[g, 2] + rise * brows[g, 2] + stays * breath[2]
        if g < moving:
            share = support[g]
            x += share * (offsets[g, 0] - rest_offsets[g, 0])
            y += share * (offsets[g, 1] - rest_offsets[g, 1])
            z += share * (offsets[g, 2] - rest_offsets[g, 2])
            length = zero
            for k in range(4):
                new_quats[g, k] = quats[g, k] + share * (offsets[g, 3 + k] - rest_offsets[g, 3 + k])
                length += new_quats[g, k] * new_quats[g, k]
            unit = one / np.float32(math.sqrt(length + np.float32(1e-24)))
            for k in range(4):
                new_quats[g, k] *= unit
            for k in range(3):
                scale = scales[g, k] + share * (offsets[g, 7 + k] - rest_offsets[g, 7 + k])
                new_scales[g, k] = max(scale, least_scale)
            opacity = opacities[g] + share * (offsets[g, 10] - rest_offsets[g, 10])
            new_opacities[g] = min(max(opacity, zero), one)
        if stays == zero:
            new_means[g, 0], new_means[g, 1], new_means[g, 2] = x, y, z
            continue
        for i in range(3):
            own = x if i == 0 else (y if i == 1 else z)
            rested = (
                rest_in_head[i, 0] * x + rest_in_head[i, 1] * y + rest_in_head[i, 2] * z + rest_in_head[i, 3]
            )
            new_means[g, i] = own + stays * (rested - own)
