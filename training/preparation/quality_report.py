"""Quality report over all videos: what was kept, what was rejected, and why."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.data.atomic import write_atomically
from training.preparation.segments import REASONS


def read_reports(folder: Path) -> list[dict[str, Any]]:
    """What became of the videos that are done, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def totals(videos: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sums over all videos; times in minutes."""
    rejected: Counter[str] = Counter()
    parts: Counter[str] = Counter()
    for video in videos:
        for part in video["rejected"]:
            rejected[part["reason"]] += part["end_s"] - part["start_s"]
            parts[part["reason"]] += 1
    clips = [clip | {"own": video["own_speech"]} for video in videos for clip in video["clips"]]
    return {
        "videos": len(videos),
        "videos_used": sum(bool(video["clips"]) for video in videos),
        "videos_with_problems": sum(bool(video["problem"]) for video in videos),
        "people": len({video["person"] for video in videos if video["clips"]}),
        "clips": len(clips),
        "minutes": round(sum(c["end_s"] - c["start_s"] for c in clips) / 60, 2),
        "minutes_of_own_speech": round(sum(c["end_s"] - c["start_s"] for c in clips if c["own"]) / 60, 2),
        "minutes_read": round(sum(video["seconds"] for video in videos) / 60, 2),
        "rejected": {
            reason: {"parts": parts[reason], "minutes": round(rejected[reason] / 60, 2)}
            for reason in REASONS
            if parts[reason]
        },
    }


def write_report(videos: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write report.json and report.md."""
    data = {"totals": totals(videos), "videos": list(videos)}
    write_atomically(folder / "report.json", json.dumps(data, ensure_ascii=False, indent=1).encode())
    write_atomically(folder / "report.md", _markdown(videos).encode())


def summary(videos: Sequence[dict[str, Any]]) -> list[str]:
    """The last lines of a run."""
    sums = totals(videos)
    lines = [
        f"{sums['videos_used']} of {sums['videos']} videos gave {sums['clips']} clips of {sums['people']} people: "
        f"{sums['minutes']} minutes of {sums['minutes_read']} ({sums['minutes_of_own_speech']} with the person's voice)"
    ]
    for reason, found in sums["rejected"].items():
        lines.append(f"rejected, {REASONS[reason]}: {found['parts']} parts, {found['minutes']} minutes")
    for video in videos:
        if video["problem"]:
            lines.append(f"warning: {video['problem']}")
    return lines


def _markdown(videos: Sequence[dict[str, Any]]) -> str:
    lines = ["# Quality report", "", *summary(videos), ""]
    lines[2:-1] = [f"- {line}" for line in lines[2:-1]]
    lines += [
        "| video | person | split | read | kept | clips | sound late | r | own speech |",
        "|---" * 9 + "|",
    ]
    for video in videos:
        kept = sum(clip["end_s"] - clip["start_s"] for clip in video["clips"])
        lines.append(
            f"| [{video['video_id']}]({video['video_id']}.jpg) | {video['person']} | {video['split']} "
            f"| {video['seconds']:.1f} s | {kept:.1f} s | {len(video['clips'])} | {_audio_offset(video['sound'])} "
            f"| {'yes' if video['own_speech'] else 'no'} |"
        )
    lines += ["", "## Rejected", ""]
    for video in videos:
        if video["problem"]:
            lines.append(f"- **{video['video_id']}**: {video['problem']}")
        for part in video["rejected"]:
            detail = f" ({part['detail']})" if part["detail"] else ""
            times = f"{part['start_s']:.2f} to {part['end_s']:.2f} s"
            lines.append(f"- {video['video_id']}, {times}: {REASONS[part['reason']]}{detail}")
    return "\n".join(lines) + "\n"


def _audio_offset(sound: dict[str, Any]) -> str:
    """Two cells of the table: how late, and how well the mouth follows."""
    if not sound or not sound["there"]:
        return "no sound |"
    r = "" if sound["r"] is None else f"{sound['r']:.2f}"
    return f"{sound['late_ms']:.0f} ms ({sound['source']}) | {r}"
