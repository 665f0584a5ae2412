"""Benchmark of FLAME fitting to landmarks of known heads, errors and times: `python benchmarks/flame_fit.py`.

The model is made up, of the real one's size and like a face (`tests/face_like_flame.py`): 300 coefficients of shape
and 100 of expression are drawn, the leading 80 and 50 are sought. Errors are mean distances in px of a 512 px picture
to where the landmarks really are, whatever was added to those that the fit is given.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.flame.fit import FlameFit, fit_flame, fit_flame_video

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))  # the made-up head lives with the tests

from face_like_flame import face_like_flame, random_heads
from made_up_heads import turned


def cameras(count: int, seed: int) -> Camera:
    """Yaw up to 35 degrees, pitch and roll up to 20, heads anywhere near the middle."""
    random = torch.rand(6, count, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    rotation = turned(35 * random[0], 20 * random[1], 20 * random[2])
    place = torch.stack([0.2 * random[3], 0.2 * random[4], 9.5 + 1.5 * random[5]], dim=1)
    return Camera.from_pose(rotation, place)


def spoiled(landmarks_px: Tensor, noise_px: float, missing: float, wild: float) -> Tensor:
    """Add noise to x and y, take some landmarks away, throw some 85 px aside."""
    generator = torch.Generator().manual_seed(0)
    given = landmarks_px + noise_px * torch.randn(landmarks_px.shape, generator=generator)
    chance = torch.rand(landmarks_px.shape[:2], generator=generator)
    given[chance < wild] += 60.0
    given[chance > 1 - missing] = torch.nan
    return given


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = face_like_flame()
    cases = {
        "clean": (0.0, 0.0, 0.0),
        "2 px noise": (2.0, 0.0, 0.0),
        "2 px, 10 % missing": (2.0, 0.1, 0.0),
        "2 px, 5 % outliers": (2.0, 0.0, 0.05),
    }

    def report(name: str, fit: FlameFit, true_px: Tensor, seconds: float) -> None:
        found = fit.camera.project(model.landmarks(model.vertices(fit.parameters)))
        errors = (found - true_px).norm(dim=2).mean(1)
        speed = f"{1000 * seconds / len(errors):6.1f} ms, {len(errors) / seconds:6.1f} a second"
        print(f"{name:32s} {errors.mean():5.2f} px, worst picture {errors.max():5.2f} px, {speed}")

    def timed(name: str, fitted, given: Tensor, true_px: Tensor) -> None:
        fitted(given[:2], model)  # the first call is slower
        start = time.perf_counter()
        fit = fitted(given, model)
        report(name, fit, true_px, time.perf_counter() - start)

    heads, camera = random_heads(arguments.pictures, seed=1), cameras(arguments.pictures, seed=2)
    seen = camera.project(model.landmarks(model.vertices(heads)))
    timed("one picture", fit_flame, seen[:1], seen[:1])
    for name, case in cases.items():
        timed(f"pictures, {name}", fit_flame, spoiled(seen, *case), seen)
    heads, camera = random_heads(arguments.frames, seed=3, people=1), cameras(arguments.frames, seed=4)
    seen = camera.project(model.landmarks(model.vertices(heads)))
    for name, case in cases.items():
        timed(f"video, {name}", fit_flame_video, spoiled(seen, *case), seen)


if __name__ == "__main__":
    main()
