"""Still files: splats as the .ply of 3D Gaussian Splatting, and as .splat."""

import numpy as np

from sdtalk.camera import UNIT_M
from sdtalk.export.splats import Splats
from sdtalk.video.writer import COMMENT

SH_DEGREE_0 = 0.28209479177387814
"""The constant spherical harmonic, 1 / (2 sqrt(pi)): colour = 0.5 + SH_DEGREE_0 * f_dc."""

CERTAIN = 1e-6
"""Opacities are kept so far from 0 and 1, where the logit ends."""

PLY_PROPERTIES = (
    "x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2",
    "rot_0", "rot_1", "rot_2", "rot_3",
)  # fmt: skip
"""One float32 each, in the order of the original code's files; spherical harmonics of degree 0 only."""

SPLAT = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])
"""One splat of a .splat file: 32 bytes."""


def as_ply(splats: Splats) -> bytes:
    """A .ply file, binary and little endian, as 3D Gaussian Splatting and gsplat write it.

    Opacities are logits, scales logarithms, colours coefficients of the constant spherical harmonic, quaternions wxyz.
    """
    eye = " ".join(f"{number:.6f}" for number in splats.eye)
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment {COMMENT}",
        f"comment axes: x right, y down, z away from the photo's camera; unit: {UNIT_M} m",
        f"comment photo's camera: at {eye}, looks along z, focal length {splats.focal:.6f} heights of its picture",
        f"element vertex {len(splats)}",
        *(f"property float {name}" for name in PLY_PROPERTIES),
        "end_header",
    ]
    certain = splats.opacities.astype(np.float64).clip(CERTAIN, 1 - CERTAIN)
    columns = [
        splats.means,
        np.zeros_like(splats.means),  # normals, which nobody reads and everybody expects
        (splats.colours - 0.5) / SH_DEGREE_0,
        np.log(certain / (1 - certain))[:, None],
        np.log(splats.scales),
        splats.quats,
    ]
    rows = np.concatenate(columns, axis=1).astype("<f4")
    return "\n".join([*header, ""]).encode("ascii") + rows.tobytes()


def as_splat(splats: Splats) -> bytes:
    """A .splat file, as antimatter15/splat reads it; the largest and most opaque come first, so they are seen first."""
    order = np.argsort(-splats.scales.prod(1) * splats.opacities, kind="stable")
    s = splats.ordered(order)
    rows = np.empty(len(s), SPLAT)
    rows["mean"], rows["scale"] = s.means, s.scales
    rows["rgba"] = as_bytes(np.concatenate([s.colours, s.opacities[:, None]], axis=1))
    rows["quat"] = (s.quats * 128 + 128).round().clip(0, 255)
    return rows.tobytes()


def as_bytes(values: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1] as uint8."""
    return (values * 255).round().clip(0, 255).astype(np.uint8)
