// Controls: turning by mouse, touch, keys and buttons, playing with the sound; draws only when something has changed.

const FARTHEST = { yaw: 35, pitch: 15 }; // degrees; farther round, a head of one photo falls apart
const STEP = 5; // degrees a key press
const SLOW_MS = 100; // between two drawings: without a graphics processor, what moves is drawn at half the size
const SOFTWARE = /swiftshader|llvmpipe|softpipe|software|basic render/i; // what pretends to be one
const SWAY = { degrees: 14, ms: 2600 }; // once, to show that the head can be turned

class Viewer {
  constructor(head) {
    this.head = head;
    this.canvas = document.getElementById("view");
    this.calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.yaw = this.pitch = this.wantedYaw = this.wantedPitch = 0;
    this.zoom = 1;
    this.frame = -1;
    this.playing = false;
    this.drawn = 0;
    this.coarse = 1;
    this.swayFrom = this.calm ? null : performance.now();
    this.name();
    this.listen();
    this.start();
    new ResizeObserver(() => this.ask()).observe(this.canvas);
  }

  // What draws: the graphics processor, or where there is none the painter.
  start() {
    const gl = hasGraphicsProcessor() ? this.canvas.getContext("webgl2", { antialias: false, depth: false }) : null;
    this.drawer = gl ? new Drawer(gl, this.head) : new Painter(this.canvas.getContext("2d"), this.head);
    this.canvas.dataset.drawer = gl ? "webgl2" : "2d";
  }

  name() {
    document.documentElement.lang = LANGUAGE;
    this.canvas.setAttribute("aria-label", WORDS.view);
    const bar = document.getElementById("bar");
    bar.setAttribute("aria-label", WORDS.controls);
    const names = [WORDS.left, WORDS.right, WORDS.up, WORDS.down];
    bar.querySelectorAll("[data-turn]").forEach((button, i) => {
      button.setAttribute("aria-label", names[i]);
      button.title = names[i];
    });
    document.getElementById("front").textContent = WORDS.front;
    document.getElementById("play").textContent = WORDS.play;
    document.getElementById("play").hidden = !this.head.motion;
    document.getElementById("hint").textContent = WORDS.hint;
  }

  listen() {
    let last = null;
    this.canvas.addEventListener("pointerdown", (event) => {
      last = [event.clientX, event.clientY];
      this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (!last) return;
      const perPixel = 120 / Math.min(this.canvas.clientWidth, this.canvas.clientHeight);
      this.turn((event.clientX - last[0]) * perPixel, (event.clientY - last[1]) * perPixel, true);
      last = [event.clientX, event.clientY];
    });
    for (const end of ["pointerup", "pointercancel"]) {
      this.canvas.addEventListener(end, () => { last = null; this.tell(); });
    }
    const keys = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    this.canvas.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      if (event.key in keys) this.turn(...keys[event.key].map((sign) => sign * STEP));
      else if (event.key === "Home") this.front();
      else if (event.key === "+" || event.key === "-") this.enlarge(event.key === "+" ? 1.1 : 1 / 1.1);
      else if (event.key === " " && this.head.motion) this.toggle();
      else return;
      event.preventDefault();
      this.tell();
    });
    document.querySelectorAll("[data-turn]").forEach((button) => {
      const [across, down] = button.dataset.turn.split(",").map(Number);
      button.addEventListener("click", () => { this.turn(across * STEP, down * STEP); this.tell(); });
    });
    document.getElementById("front").addEventListener("click", () => { this.front(); this.tell(); });
    document.getElementById("play").addEventListener("click", () => this.toggle());
    this.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    this.canvas.addEventListener("webglcontextrestored", () => { this.start(); this.ask(); });
  }

  turn(yaw, pitch, atOnce = false) {
    this.swayFrom = null;
    const limited = (value, most) => Math.max(-most, Math.min(most, value));
    this.wantedYaw = limited(this.wantedYaw + yaw, FARTHEST.yaw);
    this.wantedPitch = limited(this.wantedPitch + pitch, FARTHEST.pitch);
    if (atOnce || this.calm) [this.yaw, this.pitch] = [this.wantedYaw, this.wantedPitch];
    this.ask();
  }

  front() {
    this.zoom = 1;
    this.turn(-this.wantedYaw, -this.wantedPitch);
  }

  enlarge(factor) {
    this.zoom = Math.max(0.5, Math.min(4, this.zoom * factor));
    this.ask();
  }

  tell() {
    document.getElementById("status").textContent = WORDS.turned(Math.round(this.wantedYaw), Math.round(this.wantedPitch));
  }

  toggle() {
    if (!this.playing && this.frame >= this.head.motion.frames.length - 1) this.time = 0;
    this.playing = !this.playing;
    this.swayFrom = null;
    document.getElementById("play").textContent = this.playing ? WORDS.pause : WORDS.play;
    if (this.head.sound && !this.sound) this.sound = new Audio(this.head.sound);
    if (this.sound && !this.playing) this.sound.pause();
    if (this.playing) {
      this.began = performance.now() - 1000 * (this.time ?? 0);
      if (this.sound) {
        this.sound.currentTime = this.time ?? 0;
        this.sound.play().catch(() => { this.sound = null; this.head.sound = null; }); // no sound: by the clock
      }
    }
    this.ask();
  }

  // Which frame is due; at the end, playing stops there.
  advance(now) {
    const { frames, fps } = this.head.motion;
    this.time = this.sound ? this.sound.currentTime : (now - this.began) / 1000;
    const due = Math.min(Math.floor(this.time * fps), frames.length - 1);
    if (due !== this.frame) {
      this.frame = due;
      this.head.show(due);
    }
    if (due === frames.length - 1) this.toggle();
  }

  // Give the canvas the pixels it has on the screen, or a part of them.
  fit(part) {
    const sharp = part * Math.min(devicePixelRatio || 1, 2);
    const width = Math.max(1, Math.round(this.canvas.clientWidth * sharp));
    const height = Math.max(1, Math.round(this.canvas.clientHeight * sharp));
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
  }

  ask() {
    this.asked ??= requestAnimationFrame((now) => this.step(now));
  }

  step(now) {
    this.asked = null;
    if (this.playing) this.advance(now);
    const swayed = this.swayFrom === null ? 1 : Math.min(1, (now - this.swayFrom) / SWAY.ms);
    if (swayed < 1) this.yaw = SWAY.degrees * Math.sin(2 * Math.PI * swayed) * Math.sin(Math.PI * swayed);
    else {
      this.swayFrom = null;
      this.yaw += 0.35 * (this.wantedYaw - this.yaw);
      this.pitch += 0.35 * (this.wantedPitch - this.pitch);
    }
    const rest = Math.abs(this.wantedYaw - this.yaw) + Math.abs(this.wantedPitch - this.pitch);
    if (rest < 0.05) [this.yaw, this.pitch] = [this.wantedYaw, this.wantedPitch];
    const moves = this.playing || swayed < 1 || rest >= 0.05;
    if (this.moved && now - this.moved > SLOW_MS) this.coarse = 0.5;
    this.moved = moves ? now : null;
    this.fit(moves ? this.coarse : 1);
    this.drawer.draw(this.view(), this.zoom);
    this.canvas.dataset.drawn = ++this.drawn;
    if (moves) this.ask();
  }

  // The matrix of a head turned to the right and down, as seen; row by row.
  view() {
    const [y, p] = [this.yaw, this.pitch].map((degrees) => (degrees * Math.PI) / 180);
    const [cy, sy, cp, sp] = [Math.cos(y), Math.sin(y), Math.cos(p), Math.sin(p)];
    return [cy, 0, -sy, -sp * sy, cp, -sp * cy, cp * sy, sp, cp * cy];
  }
}

// Whether WebGL 2 is there, and is more than software; asked of another canvas, since one canvas has one kind of context.
function hasGraphicsProcessor() {
  const gl = document.createElement("canvas").getContext("webgl2", { failIfMajorPerformanceCaveat: true });
  if (!gl) return false;
  const names = gl.getExtension("WEBGL_debug_renderer_info");
  const name = String(gl.getParameter(names ? names.UNMASKED_RENDERER_WEBGL : gl.RENDERER));
  gl.getExtension("WEBGL_lose_context")?.loseContext(); // browsers keep few of them
  return !SOFTWARE.test(name);
}

function darkPage() {
  try {
    if (window.parent !== window) return window.parent.document.body.classList.contains("dark");
  } catch {} // a page of another origin does not tell
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

document.documentElement.classList.toggle("dark", darkPage());
new Viewer(new PackedHead(JSON.parse(document.getElementById("head").textContent)));
