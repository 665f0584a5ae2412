"""Contact sheets: kept frames of a video with masks and meshes over them, and rejected ones."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from sdtalk.camera import FRAME_SIZE, Camera
from training.data.atomic import write_atomically
from training.preparation.segments import Segment

TILE_PX = 160
COLUMNS = 6
MOST_TILES = 12
"""Of frames that were kept, and of segments that were rejected."""

BAR_PX = 26
KEPT, REJECTED, INK, PAPER = (60, 150, 80), (200, 60, 50), (20, 20, 20), (255, 255, 255)


class ContactSheet:
    """The contact sheet of a video.

    Args:
        title: Written on top.
        segments: All segments of the video.
        frames: How many frames it has.
    """

    def __init__(self, title: str, segments: list[Segment], frames: int) -> None:
        self.title, self.segments, self.frames = title, segments, frames
        kept = [segment for segment in segments if not segment.reason]
        self.per_clip = max(1, MOST_TILES // max(1, len(kept)))
        longest = sorted((p for p in segments if p.reason), key=lambda p: p.start - p.stop)[:MOST_TILES]
        self.wanted = {segment.start for segment in longest}
        self.tiles: list[Image.Image] = []
        self.clips = 0

    def wants(self, segment: Segment) -> bool:
        """Whether there is room for a rejected segment."""
        return not segment.reason or segment.start in self.wanted

    def add_clip(self, segment: Segment, folder: Path) -> None:
        """Show some frames of a finished clip."""
        self.clips += 1
        if self.clips > MOST_TILES or not folder.exists():
            return
        with np.load(folder / "clip.npz") as data:
            poses, mesh = (torch.from_numpy(data[name]) for name in ("world_to_camera", "mesh"))
        count = segment.stop - segment.start
        numbers = ((np.arange(self.per_clip) + 0.5) / self.per_clip * count).astype(int)
        seen = Camera.from_pose(poses[numbers, :3, :3], poses[numbers, :3, 3]).project(mesh[numbers])
        for number, points in zip(numbers.tolist(), seen, strict=True):
            picture = np.array(Image.open(folder / f"{number:06d}.jpg").convert("RGB"))
            mask = np.array(Image.open(folder / f"{number:06d}.png"))[..., None] / 255
            ground = np.array([40, 60, 140]) * (1 - mask)  # blue where nobody is, however sure
            tile = Image.fromarray((picture * mask + ground).astype(np.uint8)).resize((TILE_PX, TILE_PX))
            draw = ImageDraw.Draw(tile)
            for x, y in (points * (TILE_PX / FRAME_SIZE)).tolist():
                draw.point((x, y), fill=(90, 255, 120))
            self._label(tile, f"{(segment.start + number) / 25:.1f} s", KEPT)

    def add_rejected(self, segment: Segment, reason: str, frame: np.ndarray) -> None:
        """Show the middle of a segment that was rejected."""
        image = Image.fromarray(frame)
        image.thumbnail((TILE_PX, TILE_PX))
        tile = Image.new("RGB", (TILE_PX, TILE_PX), (60, 60, 60))
        tile.paste(image, ((TILE_PX - image.width) // 2, (TILE_PX - image.height) // 2))
        ImageDraw.Draw(tile).rectangle((0, 0, TILE_PX - 1, TILE_PX - 1), outline=REJECTED, width=3)
        self._label(tile, f"{segment.start / 25:.1f}-{segment.stop / 25:.1f} s {reason}", REJECTED)

    def save(self, path: Path) -> None:
        """Write the sheet as a JPEG."""
        rows = max(1, -(-len(self.tiles) // COLUMNS))
        sheet = Image.new("RGB", (COLUMNS * TILE_PX, 2 * BAR_PX + rows * TILE_PX), PAPER)
        draw = ImageDraw.Draw(sheet)
        draw.text((4, 6), f"{self.title}   {self.frames / 25:.1f} s   green: kept, red: rejected", fill=INK)
        for segment in self.segments:
            left, right = (x / max(self.frames, 1) * sheet.width for x in (segment.start, segment.stop))
            colour = REJECTED if segment.reason else KEPT
            draw.rectangle((left, BAR_PX, right - 1, 2 * BAR_PX - 6), fill=colour)
        for i, tile in enumerate(self.tiles):
            sheet.paste(tile, (i % COLUMNS * TILE_PX, 2 * BAR_PX + i // COLUMNS * TILE_PX))
        buffer = io.BytesIO()
        sheet.save(buffer, "JPEG", quality=85)
        write_atomically(path, buffer.getvalue())

    def _label(self, tile: Image.Image, text: str, colour: tuple[int, int, int]) -> None:
        draw = ImageDraw.Draw(tile)
        draw.rectangle((0, TILE_PX - 14, TILE_PX, TILE_PX), fill=colour)
        draw.text((3, TILE_PX - 13), text, fill=PAPER)
        self.tiles.append(tile)
