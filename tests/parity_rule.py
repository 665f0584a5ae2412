"""Parity rule: deterministic weights and inputs for the fixtures of the published code (own code; numpy only).
Everything is a pure function of a name: seed = CRC-32 of its UTF-8 bytes."""

import math
import zlib

import numpy as np


def _rng(name):
    return np.random.default_rng(zlib.crc32(name.encode("utf-8")))


def scale_offset(key, shape):
    """(s, o) for one state-dict key; None = not generated (integer table, keep the constructed value)."""
    if key.endswith(".offsets"):
        return None
    if key.endswith(".embeddings"):
        return 0.5, 0.0  # hash tables
    if ".noises." in key or key == "head_base" or key.endswith("constant_input.weight"):
        return 1.0, 0.0
    if key.endswith(("cls_token", "pos_embed", "mask_token")):
        return 0.02, 0.0
    if key.endswith(".modulation.bias"):
        return 0.02, 1.0  # style modulation sits around 1
    if key.endswith("bias"):
        return 0.02, 0.0  # any shape, also [1,C,1,1]
    if tuple(shape) == (1,):
        return 0.1, 0.0  # StyleConv noise strength
    if len(shape) == 1:
        return 0.02, 1.0  # norm weights, LayerScale gamma
    if len(shape) == 5:
        return 1.0 / math.sqrt(math.prod(shape[2:])), 0.0  # modulated conv [1,out,in,k,k]
    gain = 0.1 if key.endswith(".motion_net.net.2.weight") else 1.0  # small motions, as in a trained net
    return gain / math.sqrt(math.prod(shape[1:])), 0.0  # matrices, (transposed) conv kernels


def weight(key, shape):
    so = scale_offset(key, shape)
    if so is None:
        return None
    n = _rng(key).standard_normal(tuple(shape)).astype(np.float32)
    return n * np.float32(so[0]) + np.float32(so[1])


def normal(name, shape, s=1.0):
    return _rng(name).standard_normal(tuple(shape)).astype(np.float32) * np.float32(s)


def uniform(name, shape, lo=0.0, hi=1.0):
    return (lo + (hi - lo) * _rng(name).random(tuple(shape))).astype(np.float32)


def image(name, c, h, w):
    """[1,c,h,w] in [0,1]: a smooth pattern plus uniform noise, float64 arithmetic, cast at the end."""
    ci, i, j = np.meshgrid(np.arange(c), np.arange(h), np.arange(w), indexing="ij")
    u = _rng(name).random((c, h, w))
    v = 0.5 + 0.3 * np.sin(0.05 * (ci + 1) * i + 0.03 * j) + 0.2 * (u - 0.5)
    return np.clip(v, 0.0, 1.0).astype(np.float32)[None]


def cameras():
    """[3,3,4] float32 [R|T], PyTorch3D convention (row vectors, x_cam = x_world R + T)."""
    out = []
    for v, t in (
        ((0.0, 0.0, 0.0), (0.02, -0.05, 9.0)),
        ((0.15, -0.35, 0.05), (-0.10, 0.12, 8.6)),
        ((-0.25, 0.60, -0.12), (0.25, 0.03, 9.7)),
    ):
        v = np.array(v, np.float64)
        a = np.linalg.norm(v)
        k = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]]) / max(a, 1e-12)
        r = (np.eye(3) + math.sin(a) * k + (1 - math.cos(a)) * (k @ k)) @ np.diag([-1.0, 1.0, -1.0])
        out.append(np.concatenate([r, np.array(t)[:, None]], 1))
    return np.stack(out).astype(np.float32)


def fake_flame_masks():
    """Stand-in for FLAME_masks.pkl with assumed counts; order of use: left_eyeball, right_eyeball,
    right_eye_region, lips, left_eye_region -> 1920 indices."""
    p = _rng("FLAME_masks").permutation(3931)
    return {
        "left_eyeball": np.arange(3931, 4477),
        "right_eyeball": np.arange(4477, 5023),
        "right_eye_region": np.sort(p[:287]),
        "left_eye_region": np.sort(p[287:574]),
        "lips": np.sort(p[574:828]),
    }
