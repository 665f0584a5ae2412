"""Appearance of the page: theme and style sheet, with contrasts and sizes that everybody can read and hit.

Letters have a contrast of at least 4.5 to 1, edges of controls 3 to 1, in light and dark; what is clicked is at least
24 px wide and high (WCAG 2.2, AA). scripts/page_check.py measures it.
"""

import gradio as gr

# the font comes with Gradio
FONT: list[gr.themes.LocalFont | str] = [
    gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)),
    "sans-serif",
]
THEME = gr.themes.Default(primary_hue="teal", neutral_hue="slate", radius_size="md", font=FONT).set(
    body_background_fill="*neutral_50",
    body_text_color_subdued="*neutral_500",
    body_text_color_subdued_dark="*neutral_400",
    input_border_color="*neutral_500",
    input_border_color_dark="*neutral_400",
    input_border_color_focus="*primary_700",
    input_border_color_focus_dark="*primary_300",
    checkbox_border_color="*neutral_500",
    checkbox_border_color_dark="*neutral_400",
    checkbox_border_color_selected="*primary_700",
    checkbox_border_color_selected_dark="*primary_400",
    checkbox_background_color_selected="*primary_700",
    checkbox_label_border_color="*neutral_500",
    checkbox_label_border_color_dark="*neutral_400",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_hover_dark="*primary_800",
    button_primary_border_color_dark="*primary_400",
    button_primary_text_color="white",
    button_secondary_border_color="*neutral_500",
    button_secondary_border_color_dark="*neutral_400",
    button_border_width="1px",
    button_cancel_background_fill="#b91c1c",  # white letters on it are at 6.5:1; Gradio's own red is too light
    button_cancel_background_fill_hover="#991b1b",
    slider_color="*primary_700",
    slider_color_dark="*primary_400",
)
CSS = """
.gradio-container {max-width: 1100px !important; margin: 0 auto !important}
#introduction h1 {margin: 0 0 .2em; font-size: 1.9rem}
#introduction p, #small-print p {color: var(--body-text-color-subdued)}
#small-print p {font-size: .85rem; margin: 0}
#speech .wrap {min-height: 8rem}
#preset .wrap {gap: .35rem}
#preset .wrap label {padding: .4rem .5rem}
#dice {align-self: end; min-height: 2.4rem}
#pose-preview img {display: block; max-width: 100%; max-height: 320px; margin: 0 auto; border-radius: 6px}
#pose-preview p {margin: 0; color: var(--body-text-color-subdued)}
.no-camera #portrait .source-selection button:nth-child(2) {display: none}
.no-microphone #speech .source-selection button:nth-child(2) {display: none}

/* seen: edges, and where the keyboard is */
:root {--edge: var(--neutral-500)}
.dark {--edge: var(--neutral-400)}
.block:has(input[type=file]), #consent {border: 1px solid var(--edge) !important}
#voices .gallery-item, #voice .wrap:has(> .wrap-inner) {border: 1px solid var(--edge) !important}
#portraits .gallery-item .container {border-color: var(--edge) !important}
.tab-like-container {border-color: var(--edge) !important}
#speech :is(#time, #duration, .playback, .playback span) {color: var(--body-text-color) !important}
.source-selection .icon, :is(#speech, #clip) button:not([aria-dropeffect]) {color: var(--edge) !important}
.source-selection .icon.selected {color: var(--slider-color) !important}
input[type=range]::-webkit-slider-thumb {border: 2px solid var(--slider-color)}
input[type=range]::-moz-range-thumb {border: 2px solid var(--slider-color)}
.gradio-container :focus-visible {outline: 3px solid var(--primary-700) !important; outline-offset: 2px}
.dark .gradio-container :focus-visible {outline-color: var(--primary-300) !important}

/* hit: at least 24 px */
.gradio-container :is(button, [role=button], input:not([type=file], [type=checkbox], [type=radio])) {min-height: 24px}
.gradio-container :is(button, [role=button]) {min-width: 24px}
input[type=range] {height: 24px !important}
#consent label, button.label-wrap {min-height: 24px; text-align: start}

@media (prefers-reduced-motion: reduce) {
  *, ::before, ::after {animation-duration: .01ms !important; animation-iteration-count: 1 !important}
  *, ::before, ::after {transition-duration: .01ms !important; scroll-behavior: auto !important}
}
"""
DEVICES = """
<script>
// What this machine does not have, or the browser keeps from pages without https, is not offered.
(() => {
  const look = async () => {
    const kinds = (await navigator.mediaDevices?.enumerateDevices() ?? []).map(({kind}) => kind);
    document.documentElement.classList.toggle("no-camera", !kinds.includes("videoinput"));
    document.documentElement.classList.toggle("no-microphone", !kinds.includes("audioinput"));
  };
  look();
  navigator.mediaDevices?.addEventListener("devicechange", look);
})();
</script>
"""
