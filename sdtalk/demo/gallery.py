"""Gallery of the page: examples that come with the package, and finished results, seen before anybody generates.

Sources and rights of every file: examples/ATTRIBUTION.md. The results are made by docs/make_gallery.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from sdtalk.weights.assets import example

PORTRAITS = {
    "eileen_collins.png": "Eileen Collins",
    "grace_hopper.jpg": "Grace Hopper",
    "george_washington.jpg": "George Washington",
    "ferdinand_magellan.jpg": "Ferdinand Magellan",
    "pocahontas.jpg": "Pocahontas",
    "berthe_morisot.jpg": "Berthe Morisot",
}
"""Files of portraits, and who they show."""

VOICES = {
    "sense_and_sensibility.wav": "English: Sense and Sensibility, read aloud",
    "picture_english.mp3": "English (synthetic)",
    "morning_mandarin.mp3": "中文 · Chinese (synthetic)",
    "morning_spanish.mp3": "Español · Spanish (synthetic)",
    "morning_french.mp3": "Français · French (synthetic)",
    "morning_japanese.mp3": "日本語 · Japanese (synthetic)",
}
"""Files of recordings, and what they are."""


@dataclass(frozen=True)
class Finished:
    """A result that is there from the beginning.

    Attributes:
        portrait: File of who speaks.
        speech: File of what is said.
        language: What it is said in, for the caption.
    """

    portrait: str
    speech: str
    language: str

    @property
    def video(self) -> str:
        """Its file."""
        return f"{Path(self.portrait).stem}.mp4"

    @property
    def caption(self) -> str:
        """What stands below it."""
        return f"{PORTRAITS[self.portrait]}, {self.language}"


FINISHED = (
    Finished("eileen_collins.png", "sense_and_sensibility.wav", "English"),
    Finished("grace_hopper.jpg", "morning_mandarin.mp3", "中文"),
    Finished("george_washington.jpg", "picture_english.mp3", "English"),
    Finished("ferdinand_magellan.jpg", "morning_spanish.mp3", "español"),
    Finished("pocahontas.jpg", "morning_japanese.mp3", "日本語"),
    Finished("berthe_morisot.jpg", "morning_french.mp3", "français"),
)

INVITATION = "**Finished examples.** Choose one to see and hear it, and to begin with its portrait and voice."

GALLERY_CSS = """
#gallery, #gallery .grid-wrap {min-height: 0; max-height: none; overflow: visible; padding: 0}
#gallery .grid-container {grid-template-columns: repeat(6, minmax(0, 1fr)); gap: .6rem; padding: 0; margin: 0}
#gallery .gallery-item {height: 100%}
#gallery button {width: 100%; height: 100%; aspect-ratio: auto; background: var(--background-fill-primary)}
#gallery button {display: flex; flex-direction: column; justify-content: flex-start}
#gallery button:focus-visible {outline: 3px solid var(--color-accent); outline-offset: 2px}
#gallery button > svg {display: none}
#gallery video {display: block; width: 100%; height: auto; aspect-ratio: 1; object-fit: cover}
#gallery .caption-label {position: static; max-width: none; border: 0; border-radius: 0; padding: .4em .3em}
#gallery .caption-label {white-space: normal; background: none; align-self: center; text-align: center}
#gallery .caption-label {color: var(--body-text-color)}
@media (max-width: 900px) {#gallery .grid-container {grid-template-columns: repeat(3, minmax(0, 1fr))}}
"""

PLAYING = """
<script>
// Results of the gallery move, silently, while they are seen; where less motion is wanted, only under the pointer or
// the keyboard's focus.
(() => {
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const move = (video) => {video.muted = video.loop = video.playsInline = true; video.play().catch(() => {})};
  const seen = new IntersectionObserver((entries) => entries.forEach(({target, isIntersecting}) =>
    isIntersecting && !still.matches ? move(target) : target.pause()));
  const known = new WeakSet();
  new MutationObserver(() => document.querySelectorAll("#gallery video").forEach((video) => {
    if (known.has(video)) return;
    known.add(video);
    seen.observe(video);
    const button = video.closest("button");
    const name = button?.parentElement.querySelector(".caption-label")?.textContent.trim();
    if (name) button.setAttribute("aria-label", name);
    for (const begin of ["pointerenter", "focus"]) button?.addEventListener(begin, () => move(video));
    for (const end of ["pointerleave", "blur"]) button?.addEventListener(end, () => still.matches && video.pause());
  })).observe(document, {childList: true, subtree: true});
})();
</script>
"""


SEEN = """
() => {
  const {top, bottom} = document.querySelector("#result").getBoundingClientRect();
  if (top < 0 || bottom > innerHeight) document.querySelector("#result").scrollIntoView({block: "center"});
}
"""
"""On a telephone the result is some screens farther down; what is above it still grows a little."""


def lay_out_gallery() -> gr.Gallery:
    """Lay out the finished results, each of which can be clicked."""
    gr.Markdown(INVITATION)
    return gr.Gallery(
        [(str(example(result.video)), result.caption) for result in FINISHED],
        label="Finished examples",
        show_label=False,
        container=False,
        elem_id="gallery",
        columns=len(FINISHED),
        height="auto",
        allow_preview=False,
        interactive=False,
        object_fit="cover",
        buttons=[],
    )


def lay_out_portraits(portrait: gr.Image) -> None:
    """Lay out the portraits that can be taken."""
    files = [[str(example(name))] for name in PORTRAITS]
    gr.Examples(files, portrait, label="or take an example", elem_id="portraits", api_visibility="private")


def lay_out_voices(speech: gr.Audio) -> None:
    """Lay out the recordings that can be taken, for whichever portrait."""
    files = [[str(example(name))] for name in VOICES]
    labels = list(VOICES.values())
    gr.Examples(
        files,
        speech,
        label="or take an example",
        example_labels=labels,
        elem_id="voices",
        api_visibility="private",
    )


def connect_gallery(
    gallery: gr.Gallery, portrait: gr.Image, speech: gr.Audio, shown: list[gr.components.Component]
) -> None:
    """Let a click take a result's portrait and recording, and play it.

    Args:
        gallery: From `lay_out_gallery`.
        portrait: Where the portrait goes.
        speech: Where the recording goes.
        shown: The stage's video, note and download.
    """

    def choose(event: gr.SelectData) -> list:
        chosen = FINISHED[int(event.index)]
        who, said, video = (str(example(name)) for name in (chosen.portrait, chosen.speech, chosen.video))
        return [who, said, gr.update(value=video, visible=True), "", gr.update(value=video, visible=True)]

    taken: list[gr.components.Component] = [portrait, speech, *shown]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    gallery.select(choose, None, taken, **quiet).then(None, js=SEEN, **quiet)
