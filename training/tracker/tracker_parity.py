"""Compare our tracking networks with MediaPipe itself, on real photos and video frames.

Two steps, because mediapipe 0.10.21 cannot be installed beside our own requirements:

    OTHER_VENV/bin/python training/tracker/tracker_parity.py --judge SAMPLES FOLDER  # needs mediapipe
    python training/tracker/tracker_parity.py FOLDER  # compares and measures speed

SAMPLES holds manifest.json and photos/; the frames come from the clips whose split is "dev". It may also be a
picture.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

FRAMES_A_CLIP = 5
MAX_FACES = 8
RIGHT_SIDE, LEFT_SIDE = 234, 454
"""Mesh points whose distance is the face width."""

LIMITS = {"median": 0.05, "maximum": 1.0}
"""Largest error allowed, in percent of the face width."""

MIN_MASK_IOU = 0.995


def sample_pictures(samples: Path) -> Iterator[tuple[str, np.ndarray]]:
    """All photos, and five frames spread over each clip of the "dev" split."""
    import imageio_ffmpeg
    from PIL import Image, ImageOps

    for path in [samples] if samples.is_file() else sorted((samples / "photos").iterdir()):
        yield path.name, np.array(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    manifest = "[]" if samples.is_file() else (samples / "manifest.json").read_text()
    for entry in json.loads(manifest):
        if entry["split"] != "dev":
            continue
        reader = imageio_ffmpeg.read_frames(str(samples / entry["file"]))
        width, height = next(reader)["size"]
        frames = [np.frombuffer(f, np.uint8).reshape(height, width, 3) for f in reader]
        for i in np.linspace(0, len(frames) - 1, FRAMES_A_CLIP).astype(int):
            yield f"{entry['file']} frame {i}", frames[i]


def judge(samples: Path, folder: Path) -> None:
    """Write for each picture what MediaPipe finds: name, picture, points [face, 478, 3] in px, mask."""
    import mediapipe

    folder.mkdir(parents=True, exist_ok=True)
    mesh = mediapipe.solutions.face_mesh.FaceMesh(
        static_image_mode=True, refine_landmarks=True, max_num_faces=MAX_FACES
    )
    segmenter = mediapipe.solutions.selfie_segmentation.SelfieSegmentation(model_selection=0)
    for i, (name, picture) in enumerate(sample_pictures(samples)):
        height, width = picture.shape[:2]
        faces = mesh.process(picture).multi_face_landmarks or []
        points = [[(p.x * width, p.y * height, p.z * width) for p in face.landmark] for face in faces]
        np.savez(
            folder / f"{i:03}.npz",
            name=name,
            picture=picture,
            points=np.array(points, np.float32).reshape(-1, 478, 3),
            mask=segmenter.process(picture).segmentation_mask,
        )
        print(name, picture.shape, f"{len(faces)} faces")


def face_errors(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Distance in x, y of each point to MediaPipe's, in percent of the face width.

    Args:
        ours: Points of all faces found [face, 478, 3], px.
        theirs: Points of MediaPipe's faces, the same number.

    Returns:
        [face, 478]; each of MediaPipe's faces is compared with the nearest of ours.
    """
    errors = []
    for face in theirs:
        width = np.linalg.norm(face[RIGHT_SIDE, :2] - face[LEFT_SIDE, :2])
        distances = np.linalg.norm(ours[..., :2] - face[:, :2], axis=-1)
        errors.append(100 * distances[distances.mean(axis=1).argmin()] / width)
    return np.array(errors).reshape(-1, 478)


def compare(folder: Path) -> bool:
    """Print the differences picture by picture and in sum; true where all limits are kept."""
    import torch

    from sdtalk.tracking.networks import FaceNetworks

    networks = FaceNetworks.from_bundled()
    all_errors, ious, unlike = [], [], []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as truth:
            name, theirs, mask = str(truth["name"]), truth["points"], truth["mask"]
            picture = torch.from_numpy(truth["picture"])[None]
        faces = networks.find_faces(picture, MAX_FACES)[0]
        ours = np.array([face.points.numpy() for face in faces]).reshape(-1, 478, 3)
        own_mask = networks.person_mask(picture)[0, 0].numpy() > 0.5
        ious.append((own_mask & (mask > 0.5)).sum() / max((own_mask | (mask > 0.5)).sum(), 1))
        if len(ours) != len(theirs):
            unlike.append(f"{name}: {len(ours)} faces, MediaPipe {len(theirs)}")
            continue
        errors = face_errors(ours, theirs)
        all_errors.append(errors)
        print(f"{np.median(errors):.4f} % median  {errors.max():.3f} % max  mask {ious[-1]:.5f}  {name}")
    errors = np.concatenate(all_errors)
    median, maximum = float(np.median(errors)), float(errors.max())
    print(*unlike, sep="\n")
    print(f"{len(ious)} pictures, {len(errors)} faces compared, in {len(unlike)} the number of faces differs")
    print(f"error / face width: median {median:.4f} %, maximum {maximum:.3f} %")
    print(f"mask IoU: minimum {min(ious):.5f}, median {statistics.median(ious):.5f}")
    return (
        not unlike
        and median <= LIMITS["median"]
        and maximum <= LIMITS["maximum"]
        and min(ious) >= MIN_MASK_IOU
    )


def measure_speed(folder: Path) -> None:
    """Print frames a second on a batch of 32 frames of 512 px."""
    import torch

    from sdtalk.tracking.follow import follow_face
    from sdtalk.tracking.networks import FaceNetworks
    from sdtalk.tracking.roi import roi_from_landmarks

    networks = FaceNetworks.from_bundled()
    pictures = (np.load(path)["picture"] for path in sorted(folder.glob("*.npz"), reverse=True))
    frames = torch.from_numpy(next(p for p in pictures if p.shape == (512, 512, 3)))[None].repeat(32, 1, 1, 1)
    face = networks.find_faces(frames[:1])[0][0]
    rois = roi_from_landmarks(face.points[None].repeat(len(frames), 1, 1))
    runs: dict[str, Callable[[], object]] = {
        "mesh with crop, places known": lambda: networks.landmarks(frames, rois),
        "follow_face": lambda: follow_face(networks, frames, face),
        "find_faces (detector and mesh)": lambda: networks.find_faces(frames),
        "person_mask": lambda: networks.person_mask(frames),
    }
    for name, run in runs.items():
        run()
        seconds = []
        for _ in range(7):
            start = time.perf_counter()
            run()
            seconds.append((time.perf_counter() - start) / len(frames))
        best, usual = 1 / min(seconds), 1 / statistics.median(seconds)
        print(f"{name}: best {best:.0f}, median {usual:.0f} frames/s on {torch.get_num_threads()} threads")


def main() -> None:
    """Read the arguments and run one of the two steps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--judge", type=Path, metavar="SAMPLES", help="ask MediaPipe about these samples")
    parser.add_argument("folder", type=Path, help="where MediaPipe's answers are kept")
    arguments = parser.parse_args()
    if arguments.judge:
        judge(arguments.judge, arguments.folder)
        return
    kept = compare(arguments.folder)
    measure_speed(arguments.folder)
    if not kept:
        raise SystemExit("a limit is not kept")


if __name__ == "__main__":
    main()
