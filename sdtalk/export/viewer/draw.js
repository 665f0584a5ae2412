// WebGL2 drawing: every splat is a quad around its ellipse, blended from the farthest to the nearest.

const VERTEX = `#version 300 es
in vec2 centre;
in vec4 axes, colour;
uniform vec2 scale;
out vec2 spot;
flat out vec4 ink;
void main() {
  vec2 corner = vec2((gl_VertexID & 1) * 2 - 1, (gl_VertexID >> 1) * 2 - 1);
  ink = colour;
  spot = corner * sqrt(2.0 * log(255.0 * colour.a));
  gl_Position = vec4((centre + corner.x * axes.xy + corner.y * axes.zw) * scale, 0, 1);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec2 spot;
flat in vec4 ink;
out vec4 result;
void main() {
  float alpha = min(0.999, ink.a * exp(-0.5 * dot(spot, spot)));
  if (alpha < 1.0 / 255.0) discard;
  result = vec4(ink.rgb * alpha, alpha);
}`;

class Drawer {
  constructor(gl, head) {
    this.gl = gl;
    this.head = head;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      throw new Error(gl.getProgramInfoLog(program));
    }
    gl.useProgram(program);
    this.scale = gl.getUniformLocation(program, "scale");
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    const parts = [["centre", 2, gl.FLOAT, 0], ["axes", 4, gl.FLOAT, 8], ["colour", 4, gl.UNSIGNED_BYTE, 24]];
    for (const [name, numbers, type, from] of parts) {
      const place = gl.getAttribLocation(program, name);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, numbers, type, true, SPLAT.bytes, from);
      gl.vertexAttribDivisor(place, 1);
    }
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  // Draw the head turned by a matrix (row by row), as large as on its photo, times a zoom.
  draw(view, zoom) {
    const gl = this.gl, { width, height } = gl.canvas;
    const shown = this.head.project(view, this.head.focal * zoom * Math.min(width, height));
    gl.bufferData(gl.ARRAY_BUFFER, this.head.ellipses, gl.DYNAMIC_DRAW, 0, shown * SPLAT.floats);
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform2f(this.scale, 2 / width, -2 / height);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, shown);
  }
}
