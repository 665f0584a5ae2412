// A packed head (see sdtalk/export/packed.py): unpacking, the state of a frame, and the ellipses that a camera sees.
// Projection, dilation and the least alpha are those of sdtalk/rendering/rules.py.
// All this is done here rather than in a shader: it takes 10 ms, and where there is no graphics processor, it is the
// shader that would take seconds.

const SPLAT = { floats: 7, bytes: 28 }; // centre and two half axes in px, and the colour's four bytes
const DILATION = 0.3; // px^2
const NEAR = 0.2;

function bytesOf(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

class PackedHead {
  constructor(packed) {
    this.count = packed.count;
    this.eye = packed.camera.eye;
    this.focal = packed.camera.focal;
    this.rgba = bytesOf(packed.rgba.uint8);
    this.colours = new Uint32Array(this.rgba.buffer);
    this.reach = Float32Array.from({ length: 256 }, (_, alpha) => Math.sqrt(2 * Math.log(Math.max(alpha, 1))));
    this.unpackPlaces(packed);
    this.unpackEllipsoids(packed);
    this.motion = packed.motion ? this.unpackMotion(packed.motion) : null;
    this.sound = packed.sound ? "data:audio/wav;base64," + packed.sound.wav : null;
    this.seen = new Float32Array(this.count * SPLAT.floats);
    this.ellipses = new Float32Array(this.count * SPLAT.floats);
    this.ellipseColours = new Uint32Array(this.ellipses.buffer);
    this.ellipseBytes = new Uint8Array(this.ellipses.buffer);
    this.depths = new Float32Array(this.count);
    this.bins = new Uint32Array(65537);
    this.show(-1);
  }

  unpackPlaces(packed) { // x, y, z and head weight of each splat
    const { low, high, uint16 } = packed.means;
    const values = new Uint16Array(bytesOf(uint16).buffer);
    const weights = bytesOf(packed.head_weight.uint8);
    this.rest = new Float32Array(this.count * 4);
    for (let i = 0; i < this.count; i++) {
      for (let k = 0; k < 3; k++) {
        this.rest[4 * i + k] = low[k] + (values[3 * i + k] / 65535) * (high[k] - low[k]);
      }
      this.rest[4 * i + 3] = weights[i] / 255;
    }
    this.places = this.rest.slice();
  }

  unpackEllipsoids(packed) { // the covariances: xx, xy, xz, yy, yz, zz of each splat
    const quats = new Int8Array(bytesOf(packed.quats.int8).buffer);
    const sizes = bytesOf(packed.scales.uint8);
    const { low, high } = packed.scales;
    const variance = Float32Array.from({ length: 256 }, (_, i) => Math.exp(2 * (low + (i / 255) * (high - low))));
    this.covariances = new Float32Array(this.count * 6);
    for (let i = 0; i < this.count; i++) {
      let [w, x, y, z] = quats.subarray(4 * i, 4 * i + 4);
      const length = Math.hypot(w, x, y, z);
      w /= length; x /= length; y /= length; z /= length;
      const turn = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
      ];
      const v = [0, 1, 2].map((k) => variance[sizes[3 * i + k]]);
      const entry = (a, b) => turn[a][0] * turn[b][0] * v[0] + turn[a][1] * turn[b][1] * v[1] + turn[a][2] * turn[b][2] * v[2];
      this.covariances.set([entry(0, 0), entry(0, 1), entry(0, 2), entry(1, 1), entry(1, 2), entry(2, 2)], 6 * i);
    }
  }

  unpackMotion(packed) {
    return { ...packed, shapes: new Int8Array(bytesOf(packed.int8).buffer), int8: "" };
  }

  get moving() {
    return this.motion ? this.motion.moving : 0;
  }

  // Bring the splats to the state of a frame; -1: as the photo has them.
  show(number) {
    const frame = this.motion && number >= 0 ? this.motion.frames[number] : null;
    this.pose = frame ? frame.pose : [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0];
    this.breath = frame ? frame.breath : 0;
    this.places.set(this.rest.subarray(0, 4 * this.moving));
    if (!frame) return;
    const { moving, shapes, reach } = this.motion;
    frame.weights.forEach((weight, k) => {
      const scale = (weight * reach[k]) / 127;
      let from = 3 * moving * k;
      for (let i = 0; i < moving; i++) {
        this.places[4 * i] += scale * shapes[from++];
        this.places[4 * i + 1] += scale * shapes[from++];
        this.places[4 * i + 2] += scale * shapes[from++];
      }
    });
  }

  // Fill `ellipses` with what a camera sees, the farthest first; return how many there are.
  // view: how the head is turned before the photo's camera, row by row; focal: in px; the picture's middle is at 0, 0.
  project(view, focal) {
    const { places, covariances, eye, breath, seen, depths, rgba } = this;
    const [r00, r01, r02, tx, r10, r11, r12, ty, r20, r21, r22, tz] = this.pose;
    const axes = product(view, [r00, r01, r02, r10, r11, r12, r20, r21, r22]);
    const [a0, a1, a2, b0, b1, b2, c0, c1, c2] = axes;
    let shown = 0, least = Infinity, most = -Infinity;
    for (let i = 0, at = 0; i < this.count; i++) {
      const alpha = rgba[4 * i + 3];
      const w = places[4 * i + 3], u = 1 - w;
      const mx = places[4 * i], my = places[4 * i + 1] - breath * u, mz = places[4 * i + 2];
      const px = w * (r00 * mx + r01 * my + r02 * mz + tx) + u * mx;
      const py = w * (r10 * mx + r11 * my + r12 * mz + ty) + u * my;
      const pz = w * (r20 * mx + r21 * my + r22 * mz + tz) + u * mz;
      const z = view[6] * px + view[7] * py + view[8] * pz - eye[2];
      if (alpha < 2 || z < NEAR) continue;
      const x = (view[0] * px + view[1] * py + view[2] * pz - eye[0]) / z;
      const y = (view[3] * px + view[4] * py + view[5] * pz - eye[1]) / z;
      const zoom = focal / z;
      // how the picture moves along the ellipsoid's own axes: the projection's derivative, turned
      const h0 = zoom * (a0 - x * c0), h1 = zoom * (a1 - x * c1), h2 = zoom * (a2 - x * c2);
      const v0 = zoom * (b0 - y * c0), v1 = zoom * (b1 - y * c1), v2 = zoom * (b2 - y * c2);
      const k = 6 * i;
      const sxx = covariances[k], sxy = covariances[k + 1], sxz = covariances[k + 2];
      const syy = covariances[k + 3], syz = covariances[k + 4], szz = covariances[k + 5];
      const sv0 = sxx * v0 + sxy * v1 + sxz * v2, sv1 = sxy * v0 + syy * v1 + syz * v2, sv2 = sxz * v0 + syz * v1 + szz * v2;
      const xx = h0 * (sxx * h0 + 2 * (sxy * h1 + sxz * h2)) + h1 * (syy * h1 + 2 * syz * h2) + szz * h2 * h2 + DILATION;
      const xy = h0 * sv0 + h1 * sv1 + h2 * sv2, yy = v0 * sv0 + v1 * sv1 + v2 * sv2 + DILATION;
      const middle = (xx + yy) / 2, spread = Math.sqrt(((xx - yy) * (xx - yy)) / 4 + xy * xy);
      const wide = middle + spread, narrow = Math.max(middle - spread, 0.1);
      let dx = xy, dy = wide - xx;
      const length = Math.sqrt(dx * dx + dy * dy);
      if (length > 1e-6) { dx /= length; dy /= length; } else { dx = xx >= yy ? 1 : 0; dy = 1 - dx; }
      const reach = this.reach[alpha], long = reach * Math.sqrt(wide), short = reach * Math.sqrt(narrow);
      seen[at] = focal * x;
      seen[at + 1] = focal * y;
      seen[at + 2] = long * dx;
      seen[at + 3] = long * dy;
      seen[at + 4] = -short * dy;
      seen[at + 5] = short * dx;
      seen[at + 6] = i; // exact below 2^24
      at += SPLAT.floats;
      depths[shown++] = z;
      if (z < least) least = z;
      if (z > most) most = z;
    }
    this.sort(shown, least, most);
    return shown;
  }

  // Copy what is seen to `ellipses` in the order of depth, by counting.
  sort(shown, least, most) {
    const { bins, depths, seen, ellipses, ellipseColours, colours } = this;
    const scale = 65535 / Math.max(most - least, 1e-9), floats = SPLAT.floats;
    bins.fill(0);
    for (let i = 0; i < shown; i++) bins[(((most - depths[i]) * scale) | 0) + 1]++;
    for (let k = 1; k < bins.length; k++) bins[k] += bins[k - 1];
    for (let i = 0, from = 0; i < shown; i++, from += floats) {
      const to = floats * bins[((most - depths[i]) * scale) | 0]++;
      for (let k = 0; k < 6; k++) ellipses[to + k] = seen[from + k];
      ellipseColours[to + 6] = colours[seen[from + 6]];
    }
  }
}

function product(a, b) { // of two 3 x 3 matrices
  return [0, 3, 6].flatMap((i) => [0, 1, 2].map((j) => a[i] * b[j] + a[i + 1] * b[3 + j] + a[i + 2] * b[6 + j]));
}
