"""Tests of exported heads: files are read back by small readers of their own, and drawn again by our rasteriser."""

import base64
import io
import json
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from toy import EXAMPLE, save_speech, toy_base, toy_model, toy_picture, toy_track

from sdtalk import SDTalkPipeline
from sdtalk.camera import Camera
from sdtalk.cli.main import main
from sdtalk.driving import DrivingSignals
from sdtalk.errors import InputError
from sdtalk.export import check_export, export_head, export_talk, viewer_frame, viewer_page
from sdtalk.export.moving import moving_splats, principal_shapes
from sdtalk.export.splats import Splats, plain_colours, splats_of, turned, with_unit_length
from sdtalk.gaussians import Gaussians
from sdtalk.head import Head, posed
from sdtalk.rendering.rasteriser import rasterise
from sdtalk.rendering.reference import covariances

SIDES = ((0.0, 0.0), (25.0, 0.0), (-30.0, 15.0))


@pytest.fixture(scope="module")
def pipeline() -> SDTalkPipeline:
    return SDTalkPipeline.from_pretrained("mini", device="cpu")


@pytest.fixture(scope="module")
def head(pipeline: SDTalkPipeline) -> Head:
    return pipeline.reconstruct(EXAMPLE)


@pytest.fixture(scope="module")
def splats(head: Head) -> Splats:
    return splats_of(head.gaussians)


@pytest.fixture(scope="module")
def small_head(head: Head) -> Head:
    """A hundredth of it."""
    return replace(head, gaussians=head.gaussians.only(torch.arange(0, 149_888, 100)))


@pytest.fixture(scope="module")
def coloured(head: Head) -> Gaussians:
    """All of the head's Gaussians in the photo, in head space, with the colours that are exported."""
    gaussians = head.gaussians.gaussians
    colours = plain_colours(head.gaussians)[None]
    return replace(gaussians, features=colours).only(in_photo(head))


def in_photo(head: Head) -> Tensor:
    """Indices of those before the photo's crop rather than its mirrored margin."""
    place = head.gaussians.rest.project(head.gaussians.gaussians.means)[0]
    return ((place >= 0) & (place <= 512)).all(-1).nonzero()[:, 0]


def drawn(gaussians: Gaussians, camera: Camera) -> Tensor:
    """A picture over white."""
    picture = rasterise(gaussians, camera)
    return picture.features[0, :3] + 1 - picture.alpha[0]


def psnr(one: Tensor, other: Tensor) -> float:
    return float(-10 * torch.log10((one - other).square().mean()))


def read_ply(data: bytes) -> tuple[Gaussians, list[str]]:
    """Gaussians in the file's own axes, and its comments."""
    header, _, body = data.partition(b"end_header\n")
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    names = [line.split()[2] for line in lines if line.startswith("property float ")]
    count = next(int(line.split()[2]) for line in lines if line.startswith("element vertex"))
    rows = np.frombuffer(body, [(name, "<f4") for name in names])
    assert len(rows) == count

    def columns(*wanted: str) -> Tensor:
        return torch.from_numpy(np.stack([rows[name] for name in wanted], axis=-1).copy())[None]

    assert not columns("nx", "ny", "nz").any()
    gaussians = Gaussians(
        means=columns("x", "y", "z"),
        quats=columns("rot_0", "rot_1", "rot_2", "rot_3"),
        scales=columns("scale_0", "scale_1", "scale_2").exp(),
        opacities=columns("opacity").sigmoid()[..., 0],
        features=0.5 + columns("f_dc_0", "f_dc_1", "f_dc_2") / (2 * np.sqrt(np.pi)),
    )
    return gaussians, [line for line in lines if line.startswith("comment")]


def read_packed(packed: dict) -> tuple[Gaussians, Tensor]:
    """Gaussians in the file's own axes, and their head weights."""

    def numbers(part: dict, kind: str, width: int) -> np.ndarray:
        return np.frombuffer(base64.b64decode(part[kind]), kind).reshape(-1, width).astype(np.float32)

    means, scales = packed["means"], packed["scales"]
    low, high = (np.array(means[end], np.float32) for end in ("low", "high"))
    rgba = numbers(packed["rgba"], "uint8", 4) / 255
    fields = {
        "means": low + numbers(means, "uint16", 3) / 65535 * (high - low),
        "quats": numbers(packed["quats"], "int8", 4),
        "scales": np.exp(
            scales["low"] + numbers(scales, "uint8", 3) / 255 * (scales["high"] - scales["low"])
        ),
        "opacities": rgba[:, 3],
        "features": rgba[:, :3],
    }
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(value)).float()[None] for name, value in fields.items()
    }
    tensors["quats"] = torch.nn.functional.normalize(tensors["quats"], dim=-1)
    return Gaussians(**tensors), torch.from_numpy(numbers(packed["head_weight"], "uint8", 1)[:, 0] / 255)


def photo_camera(head: Head) -> Camera:
    """The photo's camera in the axes of exported files: it looks along z."""
    return Camera.from_pose(torch.eye(3)[None], head.gaussians.rest.translation)


def test_a_ply_shows_the_head_from_every_side(head: Head, coloured: Gaussians, tmp_path: Path) -> None:
    done = export_head(head, tmp_path / "new" / "head.PLY")
    data = done.path.read_bytes()
    gaussians, comments = read_ply(data)
    count = gaussians.means.shape[1]
    assert [p.name for p in done.path.parent.iterdir()] == ["head.PLY"]
    assert done.splats == count and done.splats + done.left_out == 149_888 and done.left_out > 0
    assert len(data) == done.size < 68 * count + 1000
    assert "AI-generated" in comments[0] and "y down" in comments[1] and "0.2 m" in comments[1]
    for yaw, pitch in SIDES:
        as_read = drawn(gaussians, turned(photo_camera(head), yaw, pitch))
        assert psnr(as_read, drawn(coloured, turned(head.gaussians.rest, yaw, pitch))) > 50, (yaw, pitch)


def test_colours_are_those_of_the_photo(head: Head, coloured: Gaussians) -> None:
    photo, alpha = head.portrait.image[0], rasterise(coloured, head.gaussians.rest).alpha[0]
    over_white = photo * alpha + 1 - alpha
    plain = psnr(drawn(head.gaussians.gaussians, head.gaussians.rest), over_white)
    assert psnr(drawn(coloured, head.gaussians.rest), over_white) > max(30.0, plain + 2), (
        "fine detail is missing"
    )


def test_the_face_looks_at_the_viewer(head: Head, splats: Splats) -> None:
    """Axes: y down, z away from the camera. The nose is nearest, the chin below it."""
    mesh = head.portrait.track.mesh[0] @ head.gaussians.rest.rotation[0].T
    nose, chin, right_eye = mesh[1], mesh[152], mesh[33]
    assert nose[2] < mesh[:, 2].median() and chin[1] > nose[1] and right_eye[0] < nose[0]
    nearest = np.linalg.norm(splats.means - nose.numpy(), axis=1).min()
    assert nearest < 0.1, "splats and face are not at the same place"


def test_a_splat_file_holds_the_same_largest_first(head: Head, splats: Splats, tmp_path: Path) -> None:
    data = export_head(head, tmp_path / "head.splat").path.read_bytes()
    assert len(data) == 32 * len(splats)
    numbers = np.frombuffer(data, "<f4").reshape(-1, 8)
    small = np.frombuffer(data, "u1").reshape(-1, 32)[:, 24:]
    order = np.argsort(-splats.scales.prod(1) * splats.opacities, kind="stable")
    np.testing.assert_array_equal(numbers[:, :3], splats.means[order])
    np.testing.assert_array_equal(numbers[:, 3:6], splats.scales[order])
    np.testing.assert_allclose(small[:, :3] / 255, splats.colours[order], atol=0.51 / 255)
    np.testing.assert_allclose(small[:, 3] / 255, splats.opacities[order], atol=0.51 / 255)
    np.testing.assert_allclose((small[:, 4:] - 128.0) / 128, splats.quats[order], atol=1.01 / 128)


def test_packed_heads_keep_what_is_seen(head: Head, coloured: Gaussians, tmp_path: Path) -> None:
    data = export_head(head, tmp_path / "head.json").path.read_bytes()
    packed = json.loads(data)
    gaussians, _ = read_packed(packed)
    assert len(data) < 1.34 * 18 * packed["count"] + 2000 and "motion" not in packed
    assert packed["camera"]["focal"] == pytest.approx(6.0)
    np.testing.assert_allclose(packed["camera"]["eye"], -head.gaussians.rest.translation[0])
    for yaw, pitch in SIDES:
        as_read = drawn(gaussians, turned(photo_camera(head), yaw, pitch))
        assert psnr(as_read, drawn(coloured, turned(head.gaussians.rest, yaw, pitch))) > 40, (yaw, pitch)


def test_motion_is_that_of_the_frames(
    pipeline: SDTalkPipeline, head: Head, coloured: Gaussians, tmp_path: Path
) -> None:
    save_speech(tmp_path / "hum.wav", 1.0)
    talk = pipeline.talk(head, tmp_path / "hum.wav", mouth=2.0)
    done = export_talk(talk, tmp_path / "talk.json")
    packed = json.loads(done.path.read_bytes())
    gaussians, weight = read_packed(packed)
    motion = packed["motion"]
    assert done.frames == len(motion["frames"]) == len(talk) == 25 and motion["fps"] == 25
    shapes = np.frombuffer(base64.b64decode(motion["int8"]), np.int8).reshape(-1, motion["moving"], 3)
    shapes = torch.from_numpy(shapes / np.float32(127)) * torch.tensor(motion["reach"])[:, None, None]
    with wave.open(io.BytesIO(base64.b64decode(packed["sound"]["wav"]))) as sound:
        assert sound.getnframes() == 16_000 == sound.getframerate()
    with torch.no_grad():
        for number in (8, 20):
            frame, signal = motion["frames"][number], talk.signals[number : number + 1]
            moved = gaussians.means[0].clone()
            moved[: motion["moving"]] += torch.einsum("k,kmc->mc", torch.tensor(frame["weights"]), shapes)
            moved[:, 1] -= frame["breath"] * (1 - weight)
            pose = torch.tensor(frame["pose"]).view(3, 4)
            turns = moved @ pose[:, :3].T + pose[:, 3]
            # the pose turns the ellipsoids, too: seen from the frame's own camera they are as in the photo's axes
            camera = Camera.from_pose(pose[None, :, :3], (pose[:, 3] + head.gaussians.rest.translation))
            placed = torch.lerp(moved, turns, weight[:, None])
            back = (placed - pose[:, 3]) @ pose[:, :3]
            as_read = drawn(replace(gaussians, means=back[None]), camera)
            arguments = signal.audio_code, signal.eyes, signal.small_motion
            animated = pipeline.model.animate(head.gaussians, *arguments).gaussians
            real = posed(animated, head.gaussians, signal.camera).only(in_photo(head))
            real = replace(real, features=coloured.features)
            there = drawn(real, signal.camera)
            assert psnr(as_read, there) > 38, number
            assert psnr(as_read, there) > psnr(drawn(coloured, head.gaussians.rest), there) + 4, (
                "nothing moves"
            )


def test_shapes_are_exact_where_few_are_enough() -> None:
    torch.manual_seed(0)
    few = torch.randn(4, 50, 3)
    offsets = torch.einsum("fk,kmc->fmc", torch.randn(20, 4), few)
    shapes = principal_shapes(offsets, 12)
    assert len(shapes) == 4
    weights = torch.linalg.lstsq(shapes.flatten(1).T, offsets.flatten(1).T).solution
    torch.testing.assert_close((shapes.flatten(1).T @ weights).T, offsets.flatten(1), atol=1e-4, rtol=1e-4)
    assert not len(principal_shapes(torch.zeros(3, 5, 3), 12))


def test_quaternions_of_other_lengths_keep_their_ellipsoids() -> None:
    """As the published code has them."""
    torch.manual_seed(0)
    quats, scales = torch.randn(100, 4), torch.rand(100, 3) + 0.1
    unit, lengths = with_unit_length(quats, scales)
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(100))
    torch.testing.assert_close(covariances(unit, lengths), covariances(quats, scales), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("size", ["mini", "base"])
def test_toys_of_both_models_can_be_exported(size: str) -> None:
    model, track = (toy_model(), toy_track()) if size == "mini" else (toy_base(), toy_track())
    if size == "base":
        track = replace(track, completion_rows=torch.arange(1920))
    for field in model.motion_fields:  # as if trained: the head moves visibly
        torch.nn.init.normal_(field.mlp[-1].weight, std=0.01)
    codes = torch.rand(5, 5) if size == "mini" else torch.rand(5, 2, 8)
    with torch.no_grad():
        head = model.reconstruct(toy_picture(), torch.ones(1, 1, 64, 64), track)
    signals = DrivingSignals(
        codes, head.eyes + torch.rand(5, 6), track.camera[torch.zeros(5, dtype=torch.long)]
    )
    moving = moving_splats(model, head, signals)
    splats, still = moving.splats, splats_of(head)
    assert set(still.kept) <= set(splats.kept), "what shows in a frame is there, too"
    assert splats.left_out == head.gaussians.means.shape[1] - len(splats) > 0
    np.testing.assert_allclose(np.linalg.norm(splats.quats, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(moving.poses[:, :, :3], np.eye(3)[None].repeat(5, 0), atol=1e-6)
    with torch.no_grad():
        animated = model.animate(head, codes, signals.eyes).gaussians.means - head.gaussians.means
    offsets = animated[:, splats.kept[: moving.shapes.shape[1]]] @ head.rest.rotation[0].T
    summed = np.einsum("fk,kmc->fmc", moving.weights, moving.shapes)
    np.testing.assert_allclose(
        summed, offsets.numpy(), atol=1e-4
    )  # five frames have no more than five shapes


@pytest.mark.parametrize(
    ("name", "moving", "says"),
    [
        ("head.obj", False, "ends in none of .ply, .splat, .json, .html"),
        ("head", False, "ends in none of"),
        ("head.ply", True, "stands still"),
        ("folder.ply", False, "it is a folder"),
        ("file.txt/head.ply", False, "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_work(
    tmp_path: Path, name: str, moving: bool, says: str
) -> None:
    (tmp_path / "folder.ply").mkdir()
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(InputError, match=says):
        check_export(tmp_path / name, moving)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file.txt", "folder.ply"]


def test_a_full_disk_leaves_nothing(
    small_head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        path.open("wb").write(data[:100])
        raise OSError(28, "No space left on device")

    (tmp_path / "head.ply").write_bytes(b"former")
    monkeypatch.setattr(Path, "write_bytes", full)
    for name in ("head.ply", "new/folder/head.splat"):
        with pytest.raises(InputError, match="No space left on device"):
            export_head(small_head, tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["head.ply"]
    assert (tmp_path / "head.ply").read_bytes() == b"former"


def test_the_command_says_what_is_there_and_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "head.splat"
    assert main(["export", str(EXAMPLE), "-o", str(output)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{output} (") and "are left out" in said.out
    assert f"{output.stat().st_size // 32:,} Gaussians" in said.out
    assert "neural renderer's part is missing" in said.err
    Image.new("RGB", (300, 300), "green").save(tmp_path / "green.png")
    for words in (
        [tmp_path / "green.png", "-o", tmp_path / "green.ply"],
        [tmp_path / "no-such.png", "-o", tmp_path / "green.ply"],
        [EXAMPLE, "-o", tmp_path / "talk.ply", "--speech", tmp_path / "no-such.wav"],
        [EXAMPLE, "-o", EXAMPLE],
    ):
        assert main(["export", *map(str, words)]) == 2
        said = capsys.readouterr()
        assert (
            len([line for line in said.err.splitlines() if line.startswith("sdtalk: ")]) == 1 and not said.out
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["green.png", "head.splat"]


def test_pages_hold_all_they_need(small_head: Head) -> None:
    page = viewer_page(small_head)
    assert "__HEAD__" not in page and "__SCRIPTS__" not in page
    assert "http:" not in page and "https:" not in page and "src=" not in page
    frame = viewer_frame(small_head, title="A <head>")
    assert 'title="A &lt;head&gt;"' in frame and frame.count('"') == 6, "the page ends its own attribute"
