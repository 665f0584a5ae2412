"""Accessibility of the page: names of groups, pictures and buttons, and announcements, where Gradio has none."""

ACCESSIBLE = """
<script>
(() => {
  const name = (element, text) => {
    if (text && element.getAttribute("aria-label") !== text) element.setAttribute("aria-label", text);
  };
  const words = (element) => element?.textContent.trim().replace(/\\s+/g, " ") ?? "";
  const told = (text) => window.toldInLanguage(text);
  const title = (path) => decodeURI(path).split("/").pop().replace(/\\.\\w+$/, "").split("_")
    .map((word) => word[0]?.toUpperCase() + word.slice(1)).join(" ");

  const SIGNS = {
    "[aria-label=play-pause-replay-button]": "Play or pause", "[aria-label=full-screen]": "Full screen",
    "[aria-label^='Skip backwards']": "Skip backwards", "[aria-label^='Skip forward']": "Skip forward",
    "[aria-label^='Adjust playback speed']": "Playback speed",
  };

  const complete = () => {
    const all = (selector) => document.querySelectorAll(selector);
    // an example that is taken brings the label in English again
    for (const part of all("[data-testid=block-label]")) for (const node of part.childNodes) {
      const text = node.nodeType === Node.TEXT_NODE ? node.data.trim() : "";
      if (told(text) !== text) node.data = told(text);
    }
    // players' signs, which have names for programmers
    for (const [selector, text] of Object.entries(SIGNS)) for (const sign of all(selector)) name(sign, told(text));
    // groups of choices are called what stands above them
    for (const group of all("fieldset")) name(group, words(group.querySelector("[data-testid=block-info]")));
    // sliders are called what they set: that they are sliders is said anyway
    for (const field of all("input[aria-label*=' for ']"))
      name(field, field.getAttribute("aria-label").replace(/^(range slider|number input) for /, ""));
    for (const button of all(".reset-button")) {
      const field = button.closest(".block").querySelector("input[type=range]");
      const label = words(field.labels[0]?.firstElementChild);
      name(button, `${button.textContent} ${label}: ${told("Reset to default value")}`);
    }
    for (const part of all("button[aria-label], .empty[aria-label]")) name(part, told(part.getAttribute("aria-label")));
    // buttons with words are called by these words
    for (const button of all("button[aria-label]")) {
      const seen = button.innerText.trim().replace(/\\s+/g, " "), label = button.getAttribute("aria-label");
      if (seen && !label.includes(seen)) name(button, `${seen} (${label})`);
    }
    // where files go is called what stands in the corner: "1. Portrait: Drop Image Here - or - Click to Upload"
    for (const block of all(".block:has(> [data-testid=block-label])")) {
      const label = words(block.querySelector("[data-testid=block-label]"));
      for (const part of block.querySelectorAll("button[aria-dropeffect]"))
        name(part, [label, words(part)].filter(Boolean).join(": "));
      for (const part of block.querySelectorAll("video, audio, .image-frame img, [data-testid=image] img"))
        part.tagName === "IMG" ? part.alt ||= label : name(part, label);
      block.querySelector(".empty[aria-label]:not([role])")?.setAttribute("role", "img");
    }
    // examples that are pictures are called by their files
    for (const picture of all(".gallery-item:not([aria-label]) img")) {
      const button = picture.closest("button");
      if (button && !words(button)) [name(button, title(picture.src)), button.title = title(picture.src)];
    }
    for (const link of all("nav a")) link.ariaCurrent = link.classList.contains("active") ? "page" : null;
  };

  // What stands in parts that come and go is said by one that stays: readers hear only what changes in such a part.
  // Ours are paragraphs; others are Gradio's "Loading".
  const heard = new Map();
  const announce = (voice) => {
    for (const part of document.querySelectorAll("[role=status]:is(p, :has(> p)):not(#status)")) {
      const box = part.closest("[id]:not([role=status])") ?? part;
      if (heard.get(box.id) !== words(part)) voice.textContent = words(part);
      heard.set(box.id, words(part));
    }
  };

  // A button that is pressed by the keyboard and goes away hands the focus to the one that takes its place.
  const ACTIONS = "button.primary, button.stop";
  let pressed = null;
  document.addEventListener("focusin", ({target}) => pressed = target.matches(ACTIONS) ? target : null);
  const keepFocus = () => {
    if (!pressed || document.activeElement !== document.body) return;
    const here = (button) => !button.disabled && button.checkVisibility();
    const left = [...document.querySelectorAll(ACTIONS)].filter(here);
    if (left.length && !left.includes(pressed)) left.at(-1).focus({preventScroll: true});
  };

  const begin = () => {
    const voice = document.createElement("div");
    voice.id = "announced";
    voice.setAttribute("aria-live", "polite");
    voice.style.cssText = "position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%)";
    document.body.append(voice);
    let due = false;
    const soon = () => {
      if (due) return;
      due = true;
      setTimeout(() => [due = false, complete(), announce(voice), keepFocus()], 50);
    };
    const all = {childList: true, subtree: true, characterData: true, attributes: true};
    new MutationObserver(soon).observe(document.body, {...all, attributeFilter: ["aria-label", "class", "disabled"]});
    soon();
  };
  document.body ? begin() : document.addEventListener("DOMContentLoaded", begin);
})();
</script>
"""
