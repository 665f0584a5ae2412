"""face-alignment landmarks: 68 points from that package, where the user has both it and its weights.

A. Bulat, G. Tzimiropoulos, "How far are we from solving the 2D & 3D face alignment problem?", 2017; their package
face-alignment 1.5, whose network is taken as it is. Crop and reading of the heat maps are written here, after the
package's own definition: its constructor also loads a face detector, and it rounds landmarks to whole px.
"""

import importlib.util
from pathlib import Path
from pickle import UnpicklingError

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from sdtalk.errors import InputError
from sdtalk.tracking.landmarks68 import LANDMARKS
from sdtalk.tracking.roi import Rois, crop

PACKAGE = "face_alignment"
WEIGHTS_URL = "https://www.adrianbulat.com/downloads/python-fan/2DFAN4-11f355bf06.pth.tar"

INPUT_PX, HEATMAP_PX = 256, 64
HOURGLASSES = 4

SIDE, UP = 200 / 195, 0.12
"""Side of the square that is looked at over width + height of the face's box, and how much of the box's height its
middle lies above the box's."""

NOISE_PX = 1.5
"""What the fit is to expect as their error, in px of the 512 px crop. A heat map is read in steps of half its px, which
are 4 px there, so that 1.2 px of it is the reading alone; the rest is what is expected of our own landmarks."""

BATCH = 8
"""Crops a forward pass."""

# The landmark that each one becomes in a mirrored picture.
_MIRRORED = [
    *range(16, -1, -1),  # contour
    *range(26, 16, -1),  # brows
    *(27, 28, 29, 30, 35, 34, 33, 32, 31),  # nose
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65),  # lips
]

_UNREADABLE = (
    UnpicklingError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    OSError,
    RuntimeError,
)


def network_file() -> Path | None:
    """The package's file that defines the network, or None where version 1.5 is not installed; imports nothing."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    return next((f for folder in folders if (f := folder / "models" / "fan.py").is_file()), None)


def weights_file() -> Path:
    """Where the package keeps the network's weights: in the cache of torch.hub; need not exist."""
    return Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_URL.rpartition("/")[2]


def installed() -> bool:
    """Whether the package and the weights are there; imports nothing and asks no network."""
    return network_file() is not None and weights_file().is_file()


class FanLandmarks:
    """Finds the 68 landmarks of faces whose place is known."""

    def __init__(self, network: nn.Module, device: torch.device | str = "cpu") -> None:
        """Wrap a network.

        Args:
            network: From RGB [batch, 3, 256, 256] in [0, 1] to a list, whose last entry are heat maps
                [batch, 68, 64, 64].
            device: To run it on.
        """
        self.device = torch.device(device)
        self.network = network.to(self.device).eval().requires_grad_(False)

    def to(self, device: torch.device | str) -> "FanLandmarks":
        """Move the network."""
        self.device = torch.device(device)
        self.network.to(self.device)
        return self

    @classmethod
    def from_installed(cls, device: torch.device | str = "cpu") -> "FanLandmarks":
        """Load the network; never downloads.

        Raises:
            InputError: The package or the weights are not there, or the weights are damaged.
        """
        source, weights = network_file(), weights_file()
        if source is None:
            remedy = "Install it: pip install face-alignment==1.5"
            raise InputError(
                "face-alignment", f"its version 1.5 is not installed, or not whole ({PACKAGE})", remedy
            )
        if not weights.is_file():
            remedy = f"Download {WEIGHTS_URL} to this place"
            raise InputError(str(weights), "the landmark network's weights are not there", remedy)
        network = _network(source)
        try:
            network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        except _UNREADABLE as error:
            remedy = f"Delete it and download {WEIGHTS_URL} again"
            raise InputError(str(weights), "these are not the landmark network's weights", remedy) from error
        return cls(network, device)

    @torch.no_grad()
    def find(
        self, pictures: UInt8[Tensor, "face height width 3"], boxes: Float[Tensor, "face 4"]
    ) -> Float[Tensor, "face 68 2"]:
        """Find the landmarks of one face a picture.

        As by the package's default, heat maps of the picture and of the mirrored picture are added.

        Args:
            pictures: RGB.
            boxes: x_min, y_min, x_max, y_max of the faces from hairline to chin, as `FaceLandmarks.box`.

        Returns:
            x, y in px of the pictures, on the CPU; as in `FaceLandmarks`, 0 is the centre of the first pixel. Rounded
            to whole px they are what the package gives for the boxes' place counted from the border (0.5 px more).
        """
        found = [torch.zeros(0, LANDMARKS, 2)]
        for part, box in zip(pictures.split(BATCH), boxes.split(BATCH), strict=True):
            corner, side = _squares(box.cpu().double())
            rois = _rois(corner, side).to(self.device)
            frames = torch.arange(len(part), device=self.device)
            seen = crop(part.to(self.device), rois, frames, INPUT_PX, zero_border=True) / 255
            heatmaps = self.network(seen)[-1] + self.network(seen.flip(3))[-1].flip(3)[:, _MIRRORED]
            places = corner[:, None] + _peaks(heatmaps.cpu()) / HEATMAP_PX * side[:, None]
            found.append((places - 0.5).float())
        return torch.cat(found)


def _network(source: Path) -> nn.Module:
    """Build the network from its one file; importing the package would import OpenCV, numba and scikit-image, too."""
    spec = importlib.util.spec_from_file_location(f"{PACKAGE}_network", source)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FAN(HOURGLASSES)


def _squares(
    boxes: Float[Tensor, "face 4"],
) -> tuple[Float[Tensor, "face 2"], Float[Tensor, "face 1"]]:
    """Upper left corners and sides of the squares that belong to boxes; 0 = left edge of the first pixel."""
    low, high = boxes[:, :2] + 0.5, boxes[:, 2:] + 0.5
    middle = (low + high) / 2 - (high - low) * boxes.new_tensor([0, UP])
    side = SIDE * (high - low).sum(1, keepdim=True)
    return middle - side / 2, side


def _rois(corner: Float[Tensor, "face 2"], side: Float[Tensor, "face 1"]) -> Rois:
    """What of the picture fills the network's input: whole px, and without a 256th at the left and top.

    So does the package, which counts pixels from 1 here, but not where it brings landmarks back.
    """
    low, high = (corner + side / INPUT_PX).trunc(), (corner + side).trunc()
    size = high - low
    middle = (low + high) / 2 - 0.5 + size / (2 * INPUT_PX)  # `crop` puts its first sample on the corner
    return Rois(middle.float(), size.float(), torch.zeros(len(size)))


def _peaks(heatmaps: Float[Tensor, "face 68 row column"]) -> Float[Tensor, "face 68 2"]:
    """x, y of the highest px, a quarter of a px towards the higher neighbours; 0 = left edge of the first px.

    Peaks at the border stay in the middle of their px.
    """
    size = heatmaps.shape[-1]
    at = heatmaps.flatten(2).argmax(2, keepdim=True)
    peak: Int[Tensor, "face 68 2"] = torch.cat([at % size, at // size], dim=2)
    inside = ((peak > 0) & (peak < size - 1)).all(dim=2, keepdim=True)

    def height(step: int) -> Tensor:
        return heatmaps.flatten(2).gather(2, (at + step).clamp(0, size * size - 1))

    slope = torch.cat([height(1) - height(-1), height(size) - height(-size)], dim=2)
    return peak + 0.5 + 0.25 * torch.where(inside, slope.sign(), 0)
