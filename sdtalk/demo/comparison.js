// Comparison: two results, or a result and its portrait, side by side; both players go as one.
// Gradio runs this once: `element` holds the markup of `result_cards.comparison_markup`.
const APART_S = 0.08; // two frames: a player that is farther from the other one is put right
const section = element.querySelector("section");
const [say, toggle, slider, output, sound] =
  ["p[role=status]", ".toggle", "input[type=range]", "output", "fieldset"].map((part) => section.querySelector(part));
const figures = [...section.querySelectorAll("figure")];
const word = (name, values) => JSON.parse(section.dataset.words)[name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
let shown = []; // what is compared: number, video, portrait
let lead = null; // the longer of the videos that are shown
let playing = false;

const videos = () => figures.map((f) => f.querySelector("video")).filter((v) => !v.hidden);
const clock = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`;

const tell = () => {
  const [at, end] = [lead?.currentTime ?? 0, lead?.duration || 0];
  slider.max = end;
  slider.value = at;
  output.textContent = `${clock(at)} / ${clock(end)}`;
  slider.setAttribute("aria-valuetext", output.textContent);
};
const seek = (at) => {
  for (const video of videos()) video.currentTime = Math.min(at, video.duration || at);
  tell();
};
const pause = () => {
  playing = false;
  toggle.textContent = word("play");
  for (const video of videos()) video.pause();
};
const ready = (video) => video.readyState >= 3 ? null : new Promise((done) => video.addEventListener("canplay", done, {once: true}));
const play = async () => {
  playing = true;
  toggle.textContent = word("pause");
  seek(lead.ended || lead.currentTime > lead.duration - 0.05 ? 0 : lead.currentTime);
  await Promise.all(videos().map(ready)); // both begin together
  if (!playing) return;
  await Promise.all(videos().filter((v) => v.currentTime < v.duration - 0.02).map((v) => v.play())).catch(pause);
  requestAnimationFrame(together);
};
const together = () => {
  if (!playing || section.hidden) return;
  for (const video of videos()) {
    if (video !== lead && !video.ended && Math.abs(video.currentTime - lead.currentTime) > APART_S && lead.currentTime < video.duration) {
      video.currentTime = lead.currentTime;
      if (video.paused) video.play().catch(pause);
    }
  }
  tell();
  requestAnimationFrame(together);
};
const longest = () => {
  const all = videos();
  lead = all.reduce((a, b) => ((b.duration || 0) > (a.duration || 0) ? b : a), all[0] ?? null);
  tell();
};
const hear = () => {
  const chosen = Number(section.querySelector("[name=compared-sound]:checked").value);
  figures.forEach((figure, side) => { figure.querySelector("video").muted = videos().length > 1 && side !== chosen; });
};

const show = (figure, {source, image, name}) => {
  const [video, picture, none] = ["video", "img", "p"].map((part) => figure.querySelector(part));
  figure.querySelector("figcaption").textContent = name;
  video.hidden = image || !source;
  picture.hidden = !image || !source;
  none.hidden = Boolean(source);
  video.setAttribute("aria-label", name);
  picture.alt = name;
  picture.onerror = () => { picture.hidden = true; none.hidden = false; };
  if (image || !source) video.removeAttribute("src");
  else if (video.getAttribute("src") !== source) video.src = source;
  if (image && source) picture.src = source;
};
document.addEventListener("sdtalk-compare", ({detail}) => {
  const same = JSON.stringify(detail) === JSON.stringify(shown);
  if (same) return; // the list is new, and what is compared is not
  pause();
  shown = detail;
  section.hidden = !shown.length;
  if (!shown.length) {
    figures.forEach((figure) => show(figure, {name: ""}));
    return;
  }
  const named = ({number}) => word("name", {number});
  const [first, second] = shown;
  const sides = second
    ? shown.map((one) => ({source: one.video, name: named(one)}))
    : [{source: first.portrait, image: true, name: word("photo", first)}, {source: first.video, name: named(first)}];
  figures.forEach((figure, side) => show(figure, sides[side]));
  say.textContent = second ? word("with_other", {number: first.number, other: second.number}) : word("with_photo", first);
  sound.hidden = !second;
  sound.querySelectorAll("span").forEach((span, side) => { span.textContent = sides[side].name; });
  hear();
  longest();
  section.scrollIntoView({block: "nearest"});
});
for (const figure of figures) {
  const video = figure.querySelector("video");
  video.addEventListener("loadedmetadata", longest);
  video.addEventListener("ended", () => { if (video === lead) { pause(); tell(); } });
}
document.addEventListener("play", ({target}) => { // one thing at a time is heard
  const own = section.contains(target);
  if (!own && !target.muted && playing) pause();
  if (own) for (const other of document.querySelectorAll("video, audio")) if (!section.contains(other) && !other.muted) other.pause();
}, true);
toggle.addEventListener("click", () => (playing ? pause() : play()));
slider.addEventListener("input", () => seek(Number(slider.value)));
sound.addEventListener("change", hear);
section.querySelector(".close").addEventListener("click", () => document.dispatchEvent(new Event("sdtalk-compare-closed")));
tell();
