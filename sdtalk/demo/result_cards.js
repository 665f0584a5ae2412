// List of results: its buttons, its addresses, and which results are compared.
// Gradio runs this once: `element` is the list, `trigger` tells the server, `watch` calls back when the list is new.
const CHECK_EVERY_MS = 60000;
const root = () => (window.gradio_config?.root ?? "") + (window.gradio_config?.api_prefix ?? "/gradio_api");
const address = (path) => path && `${root()}/file=${path.split("/").map(encodeURIComponent).join("/")}`;
const card = (number) => element.querySelector(`.result[data-number="${number}"]`);
const there = (one) => one?.querySelector("video[data-path]");
let compared = []; // numbers, at most two
let focused = null; // number and action of the button that has the focus
let removing = false;
const failed = new Set();

const check = () => trigger("click", {action: "check", shown: element.querySelectorAll("video[data-path]").length});

const compare = (numbers) => {
  compared = numbers.filter((number) => there(card(number)));
  for (const button of element.querySelectorAll("[data-action=compare]")) {
    button.setAttribute("aria-pressed", compared.includes(button.closest(".result").dataset.number));
  }
  const detail = compared.map((number) => ({
    number, video: address(there(card(number)).dataset.path), portrait: address(card(number).dataset.portrait),
  }));
  document.dispatchEvent(new CustomEvent("sdtalk-compare", {detail}));
};

const named = (button) => {
  const action = element.contains(button) && button.dataset.action;
  return action ? {number: button.closest(".result").dataset.number, action} : null;
};
// Gradio makes the old elements into the new ones, place by place: the focus stays with its result, not with its place.
const keepFocus = () => {
  const now = named(document.activeElement);
  const title = document.querySelector("#history-title");
  if (removing && document.activeElement === document.body) title.focus(); // it was the last of the list
  if (now && focused && (now.number !== focused.number || now.action !== focused.action)) {
    const own = card(focused.number);
    if (own) (own.querySelector(`[data-action=${focused.action}]`) ?? title).focus({preventScroll: true});
  }
  removing = false;
  focused = named(document.activeElement);
};

const draw = () => {
  for (const video of element.querySelectorAll("video[data-path]")) {
    const source = `${address(video.dataset.path)}#t=0.5`; // its first frame has closed lips
    if (video.getAttribute("src") !== source) video.src = source;
    const download = video.closest(".result").querySelector("[data-action=download]");
    download.href = address(video.dataset.path);
  }
  for (const time of element.querySelectorAll("time")) {
    time.textContent = new Date(time.dateTime).toLocaleTimeString([], {hour: "2-digit", minute: "2-digit"});
  }
  keepFocus();
  compare(compared);
};

element.addEventListener("focusin", ({target}) => { focused = named(target); });
element.addEventListener("focusout", () => { focused = null; });
element.addEventListener("click", ({target}) => {
  const action = target.closest("[data-action]")?.dataset.action;
  const number = target.closest(".result")?.dataset.number;
  if (action === "compare") {
    compare(compared.includes(number) ? compared.filter((n) => n !== number) : [...compared, number].slice(-2));
  } else if (action && action !== "download") {
    removing = action === "remove";
    if (action === "play") document.querySelector("#result")?.scrollIntoView({block: "center"});
    trigger("click", {action, number: Number(number)});
  }
});
element.addEventListener("error", ({target}) => { // capturing: errors of players do not bubble
  const path = target.dataset?.path;
  if (path && !failed.has(path)) { failed.add(path); check(); }
}, true);
document.addEventListener("sdtalk-compare-closed", () => {
  const last = compared.at(-1);
  compare([]);
  card(last)?.querySelector("[data-action=compare]")?.focus();
});
setInterval(() => {
  const keep = Number(element.querySelector("[data-keep]")?.dataset.keep ?? Infinity);
  const old = [...element.querySelectorAll(".result")].filter(there).some((one) => Date.now() / 1000 - one.dataset.at > keep);
  if (old && !document.hidden) check();
}, CHECK_EVERY_MS);
watch("value", draw);
draw();
