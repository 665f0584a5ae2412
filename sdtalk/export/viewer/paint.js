// Drawing without a graphics processor: ellipses blended from the nearest to the farthest into a picture, until a pixel
// is full. Software WebGL takes more than ten times as long, which the cost of each of its 160,000 triangles makes.

const FULL = 1 / 255; // what shines through less is not looked at any more
const FALL = Float32Array.from({ length: 1025 }, (_, i) => Math.exp(-i / 128)); // exp(-x) up to x = 8

class Painter {
  constructor(context, head) {
    this.context = context;
    this.head = head;
  }

  // As `Drawer.draw`.
  draw(view, zoom) {
    const { width, height } = this.context.canvas;
    const shown = this.head.project(view, this.head.focal * zoom * Math.min(width, height));
    if (this.picture?.width !== width || this.picture?.height !== height) {
      this.picture = this.context.createImageData(width, height);
      this.colours = new Float32Array(3 * width * height);
      this.through = new Float32Array(width * height);
    }
    this.colours.fill(0);
    this.through.fill(1);
    for (let i = shown - 1; i >= 0; i--) this.blend(SPLAT.floats * i, width, height);
    this.finish();
    this.context.putImageData(this.picture, 0, 0);
  }

  blend(at, width, height) {
    const e = this.head.ellipses, ink = 4 * (at + 6), bytes = this.head.ellipseBytes, { colours, through } = this;
    const red = bytes[ink], green = bytes[ink + 1], blue = bytes[ink + 2], opacity = bytes[ink + 3] / 255;
    const x = e[at] + width / 2 - 0.5, y = e[at + 1] + height / 2 - 0.5;
    const ax = e[at + 2], ay = e[at + 3], bx = e[at + 4], by = e[at + 5];
    const across = Math.sqrt(ax * ax + bx * bx), down = Math.sqrt(ay * ay + by * by);
    const left = Math.max(0, Math.ceil(x - across)), right = Math.min(width - 1, Math.floor(x + across));
    const top = Math.max(0, Math.ceil(y - down)), bottom = Math.min(height - 1, Math.floor(y + down));
    // half the square of the distance in standard deviations, where the edge has `edge`
    const edge = Math.log(255 * opacity), long = ax * ax + ay * ay, short = bx * bx + by * by;
    const xx = edge * ((ax * ax) / (long * long) + (bx * bx) / (short * short));
    const xy = 2 * edge * ((ax * ay) / (long * long) + (bx * by) / (short * short));
    const yy = edge * ((ay * ay) / (long * long) + (by * by) / (short * short));
    for (let row = top; row <= bottom; row++) {
      const dy = row - y, along = xy * dy, fixed = yy * dy * dy;
      for (let column = left, p = row * width + left; column <= right; column++, p++) {
        const free = through[p];
        if (free < FULL) continue;
        const dx = column - x, far = (xx * dx + along) * dx + fixed;
        if (far > edge) continue;
        const weight = free * Math.min(0.999, opacity * FALL[(far * 128 + 0.5) | 0]);
        colours[3 * p] += weight * red;
        colours[3 * p + 1] += weight * green;
        colours[3 * p + 2] += weight * blue;
        through[p] = free - weight;
      }
    }
  }

  finish() {
    const { colours, through } = this, { data } = this.picture;
    for (let p = 0; p < through.length; p++) {
      const shown = 1 - through[p];
      for (let k = 0; k < 3; k++) data[4 * p + k] = shown > 0 ? colours[3 * p + k] / shown : 0;
      data[4 * p + 3] = 255 * (through[p] < FULL ? 1 : shown);
    }
  }
}
