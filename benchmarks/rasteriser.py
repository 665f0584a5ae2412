"""Benchmark of the CPU rasteriser on a scene of the paper's size: `python benchmarks/rasteriser.py --backward`.

Reports the shortest wall time, and the shortest process CPU time divided by the number of threads: on a machine that
others use as well, the second is the wall time to expect once the cores are quiet.
"""

import argparse
import time

import torch

from sdtalk.camera import FACING, FOCAL_PX, FRAME_SIZE, Camera
from sdtalk.gaussians import Gaussians
from sdtalk.rendering.rasteriser import rasterise
from sdtalk.rendering.rules import OUR_RULES, PUBLISHED_RULES, RasterRules

DISTANCE = 10.5
YAW = 0.25


def head_scene(count: int, channels: int, spread: float = 1.0, seed: int = 0) -> Gaussians:
    """Two layers on a curved surface, most of it opaque, as the visible branch makes them.

    Args:
        count: Number of Gaussians, rounded down to twice a square.
        channels: Feature channels, standard normal.
        spread: Standard deviation of a Gaussian in grid spacings.
        seed: Of every random draw.
    """
    generator = torch.Generator().manual_seed(seed)
    side = int((count / 2) ** 0.5)
    half = DISTANCE * FRAME_SIZE / 2 / FOCAL_PX
    line = torch.linspace(-half, half, side)
    y, x = torch.meshgrid(-line, line, indexing="ij")
    layers = []
    for layer in (1.0, -1.0):
        depth = (
            0.25
            + 0.15 * torch.sin(3 * x) * torch.cos(2 * y)
            + 0.2 * torch.rand(side, side, generator=generator)
        )
        layers.append(torch.stack([x, y, 0.4 - (x**2 + y**2) + layer * depth], -1).reshape(-1, 3))
    means = torch.cat(layers)[None]
    n = means.shape[1]
    random = torch.rand(1, n, generator=generator)
    # Beta(1, 15) by inversion of its distribution function.
    opaque = (1 - torch.rand(1, n, generator=generator)) ** (1 / 15)
    thin = 0.05 + 0.85 * torch.rand(1, n, generator=generator)
    step = 2 * half / side
    return Gaussians(
        means=means,
        quats=torch.nn.functional.normalize(torch.randn(1, n, 4, generator=generator), dim=-1),
        scales=spread * step * torch.exp(0.2 * torch.randn(1, n, 3, generator=generator)),
        opacities=torch.where(random < 0.95, opaque, thin),
        features=torch.randn(1, n, channels, generator=generator),
    )


def head_camera(size: int) -> Camera:
    """The standard camera, turned a little to the side."""
    turn = torch.tensor(YAW)
    cos, sin = torch.cos(turn), torch.sin(turn)
    yaw = torch.tensor([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
    return Camera.from_pose((FACING @ yaw)[None], torch.tensor([[0.0, 0.0, DISTANCE]]), size)


def one_run(gaussians: Gaussians, camera: Camera, backward: bool, rules: RasterRules) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    fields = [gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.features]
    for field in fields:
        field.grad = None
        field.requires_grad_(backward)
    wall, cpu = time.perf_counter(), time.process_time()
    image = rasterise(gaussians, camera, rules)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if backward:
        grads = torch.ones_like(image.features), torch.ones_like(image.alpha)
        start, cpu_start = time.perf_counter(), time.process_time()
        torch.autograd.backward((image.features, image.alpha), grads)
        wall += time.perf_counter() - start
        cpu += time.process_time() - cpu_start
    return wall, cpu


def main() -> None:
    """Print one line of figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gaussians", type=int, default=177_000)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--spread", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--backward", action="store_true")
    parser.add_argument("--published", action="store_true", help="by the published rasteriser's rules")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rules = PUBLISHED_RULES if args.published else OUR_RULES
    start = time.perf_counter()
    gaussians, camera = head_scene(args.gaussians, args.channels, args.spread), head_camera(args.size)
    one_run(head_scene(200, args.channels), head_camera(64), args.backward, rules)
    print(f"first call (compile or load): {time.perf_counter() - start:.2f} s")
    runs = [one_run(gaussians, camera, args.backward, rules) for _ in range(args.repeats)]
    wall = min(wall for wall, _ in runs) * 1e3
    cpu = min(cpu for _, cpu in runs) * 1e3 / args.threads
    what = "forward + backward" if args.backward else "forward"
    print(f"{what}: wall {wall:.1f} ms, CPU time / {args.threads} threads {cpu:.1f} ms")


if __name__ == "__main__":
    main()
