// From the bytes of a .spz to a picture in a canvas: the rasteriser's equations in WebGL 2.
"use strict";

const C0 = 0.28209479177387814;
const TEXTURE_WIDTH = 2048;
const NEAR = 0.01;

// Reads what export/spz.py writes: y is up, the front faces +z.
async function unpackSpz(base64) {
  const letters = atob(base64), packed = new Uint8Array(letters.length);
  for (let i = 0; i < packed.length; i++) packed[i] = letters.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const header = new DataView(bytes.buffer);
  const count = header.getUint32(8, true), degree = bytes[12], unit = 1 / 2 ** bytes[13];
  let next = 16;
  const take = (width) => bytes.subarray(next, (next += width * count));
  const means = take(9), opacities = take(1), colors = take(3), scales = take(3);
  const quats = new DataView(bytes.buffer, next, 4 * count);
  take(4);
  const data = new Float32Array(12 * count), centers = new Float32Array(3 * count);
  for (let i = 0; i < count; i++) {
    for (let a = 0; a < 3; a++) {
      const at = 9 * i + 3 * a;
      const whole = (means[at] | (means[at + 1] << 8) | (means[at + 2] << 16)) << 8 >> 8;
      data[12 * i + a] = centers[3 * i + a] = whole * unit;
    }
    data[12 * i + 3] = opacities[i] / 255;
    const variances = [0, 1, 2].map((a) => Math.exp(scales[3 * i + a] / 8 - 20));
    data.set(covariance(unpackQuaternion(quats.getUint32(4 * i, true)), variances), 12 * i + 4);
    data[12 * i + 10] = colors[3 * i] + 256 * colors[3 * i + 1] + 65536 * colors[3 * i + 2];
  }
  const bands = (degree + 1) ** 2 - 1;
  return { count, degree, centers, data, harmonics: bands ? take(3 * bands) : null };
}

function unpackQuaternion(word) {
  const q = [0, 0, 0, 0], largest = word >>> 30;
  let rest = 1, shift = 20;
  for (let a = 0; a < 4; a++) {
    if (a === largest) continue;
    const field = (word >>> shift) & 1023;
    q[a] = ((field & 512 ? -1 : 1) * (field & 511)) / (511 * Math.SQRT2);
    rest -= q[a] * q[a];
    shift -= 10;
  }
  q[largest] = Math.sqrt(Math.max(rest, 0));
  return q;
}

// R diag(variances) R^T as xx, xy, xz, yy, yz, zz.
function covariance([x, y, z, w], v) {
  const R = [
    1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
    2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
    2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
  ];
  const at = (i, j) => v[0] * R[3 * i] * R[3 * j] + v[1] * R[3 * i + 1] * R[3 * j + 1] + v[2] * R[3 * i + 2] * R[3 * j + 2];
  return [at(0, 0), at(0, 1), at(0, 2), at(1, 1), at(1, 2), at(2, 2)];
}

const VERTEX = `#version 300 es
precision highp float;
precision highp int;
uniform highp sampler2D data;
uniform highp usampler2D harmonics;
uniform int degree;
uniform mat3 rotation;   // world to camera: x right, y down, z forward
uniform vec3 eye;
uniform vec2 size;       // pixels
uniform float focal;     // pixels
uniform int mode;        // colour, depth, alpha, centres
uniform vec2 depths;     // of what is brightest and darkest, in mode depth
in uint index;
out vec2 offset;
flat out vec3 conic;
flat out vec4 rgba;

vec4 texel(int i) { return texelFetch(data, ivec2(i % ${TEXTURE_WIDTH}, i / ${TEXTURE_WIDTH}), 0); }

vec3 harmonic(int k) {
  int i = int(index) * ((degree + 1) * (degree + 1) - 1) + k - 1;
  return vec3(texelFetch(harmonics, ivec2(i % ${TEXTURE_WIDTH}, i / ${TEXTURE_WIDTH}), 0).rgb) / 128.0 - 1.0;
}

vec3 directed(vec3 d) {
  float x = d.x, y = d.y, z = d.z;
  vec3 c = 0.4886025119029199 * (-y * harmonic(1) + z * harmonic(2) - x * harmonic(3));
  if (degree > 1) c += 1.0925484305920792 * (x * y * harmonic(4) - y * z * harmonic(5) - x * z * harmonic(7))
    + 0.31539156525252005 * (3.0 * z * z - 1.0) * harmonic(6)
    + 0.5462742152960396 * (x * x - y * y) * harmonic(8);
  if (degree > 2) c += -0.5900435899266435 * y * (3.0 * x * x - y * y) * harmonic(9)
    + 2.890611442640554 * x * y * z * harmonic(10)
    - 0.4570457994644658 * y * (5.0 * z * z - 1.0) * harmonic(11)
    + 0.3731763325901154 * z * (5.0 * z * z - 3.0) * harmonic(12)
    - 0.4570457994644658 * x * (5.0 * z * z - 1.0) * harmonic(13)
    + 1.445305721320277 * z * (x * x - y * y) * harmonic(14)
    - 0.5900435899266435 * x * (x * x - 3.0 * y * y) * harmonic(15);
  return c;
}

void main() {
  vec4 a = texel(3 * int(index)), b = texel(3 * int(index) + 1), c = texel(3 * int(index) + 2);
  vec3 p = rotation * (a.xyz - eye);
  gl_Position = vec4(2.0, 2.0, 2.0, 1.0);  // nowhere
  if (p.z < ${NEAR} || a.w < 1.0 / 255.0) return;
  mat3 world = mat3(b.x, b.y, b.z, b.y, b.w, c.x, b.z, c.x, c.y);
  mat3 S = rotation * world * transpose(rotation);
  vec2 margin = 1.3 * 0.5 * size / focal;
  vec2 t = clamp(p.xy / p.z, -margin, margin);
  vec3 jx = vec3(focal / p.z, 0.0, -focal * t.x / p.z), jy = vec3(0.0, focal / p.z, -focal * t.y / p.z);
  float xx = dot(jx, S * jx) + 0.3, xy = dot(jx, S * jy), yy = dot(jy, S * jy) + 0.3;
  float extent = min(3.33, sqrt(2.0 * log(255.0 * a.w)));
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2.0 - 1.0;
  offset = corner * (extent * sqrt(vec2(xx, yy)) + 1.0);
  conic = vec3(yy, -xy, xx) / (xx * yy - xy * xy);
  if (mode == 3) {  // dots of one size
    float dot_size = max(size.y / 500.0, 1.0);
    offset = 3.0 * dot_size * corner;
    conic = vec3(1.0, 0.0, 1.0) / (dot_size * dot_size);
  }
  int packed = int(c.z);
  vec3 dc = vec3(packed & 255, (packed >> 8) & 255, packed >> 16) / 255.0;
  vec3 color = 0.5 + ${C0} * (dc - 0.5) / 0.15;
  if (degree > 0) color += directed(normalize(a.xyz - eye));
  if (mode == 1) color = vec3(1.0 - 0.85 * clamp((p.z - depths.x) / (depths.y - depths.x), 0.0, 1.0));
  if (mode == 2) color = vec3(1.0);
  rgba = vec4(max(color, 0.0), mode == 3 ? 0.999 : a.w);
  vec2 pixel = focal * p.xy / p.z + offset;
  gl_Position = vec4(2.0 * pixel.x / size.x, -2.0 * pixel.y / size.y, 0.0, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec2 offset;
flat in vec3 conic;
flat in vec4 rgba;
out vec4 painted;
void main() {
  float power = 0.5 * (conic.x * offset.x * offset.x + conic.z * offset.y * offset.y) + conic.y * offset.x * offset.y;
  float alpha = min(rgba.a * exp(-power), 0.999);
  if (alpha < 1.0 / 255.0) discard;
  painted = vec4(rgba.rgb * alpha, alpha);
}`;

// One canvas and the splats in it.
class Panel {
  constructor(canvas) {
    const gl = canvas.getContext("webgl2", { antialias: false, preserveDrawingBuffer: true });
    if (!gl) throw new Error("this browser has no WebGL 2");
    Object.assign(this, { canvas, gl, splats: null, sorted: "" });
    this.program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(this.program, shader);
    }
    gl.linkProgram(this.program);
    if (!gl.getProgramParameter(this.program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(this.program));
    gl.useProgram(this.program);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    const index = gl.getAttribLocation(this.program, "index");
    gl.enableVertexAttribArray(index);
    gl.vertexAttribIPointer(index, 1, gl.UNSIGNED_INT, 0, 0);
    gl.vertexAttribDivisor(index, 1);
    this.textures = [gl.createTexture(), gl.createTexture()];
    gl.uniform1i(this.place("harmonics"), 1);
  }

  place(name) {
    return this.gl.getUniformLocation(this.program, name);
  }

  load(splats) {
    const { gl } = this;
    this.splats = splats;
    this.sorted = "";
    this.order = new Uint32Array(splats.count);
    this.depths = new Float32Array(splats.count);
    this.upload(0, gl.RGBA32F, gl.RGBA, gl.FLOAT, splats.data, 4);
    const none = new Uint8Array(3);
    this.upload(1, gl.RGB8UI, gl.RGB_INTEGER, gl.UNSIGNED_BYTE, splats.harmonics ?? none, 3);
    gl.uniform1i(this.place("degree"), splats.degree);
  }

  upload(unit, inside, format, type, values, channels) {
    const { gl } = this;
    const rows = Math.ceil(values.length / channels / TEXTURE_WIDTH);
    if (rows > gl.getParameter(gl.MAX_TEXTURE_SIZE)) throw new Error("there are more splats than this browser can hold");
    const full = new values.constructor(rows * TEXTURE_WIDTH * channels);
    full.set(values);
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, this.textures[unit]);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texImage2D(gl.TEXTURE_2D, 0, inside, TEXTURE_WIDTH, rows, 0, format, type, full);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  }

  // Far ones first, by counting: 2^16 depths are finer than any eye.
  sort(eye, forward) {
    const { count, centers } = this.splats, { order, depths } = this;
    let near = Infinity, far = -Infinity;
    for (let i = 0; i < count; i++) {
      const z = forward[0] * (centers[3 * i] - eye[0]) + forward[1] * (centers[3 * i + 1] - eye[1]) + forward[2] * (centers[3 * i + 2] - eye[2]);
      depths[i] = z;
      if (z < near) near = z;
      if (z > far) far = z;
    }
    const scale = 65535 / Math.max(far - near, 1e-9), starts = new Uint32Array(65537);
    for (let i = 0; i < count; i++) starts[((far - depths[i]) * scale | 0) + 1]++;
    for (let i = 0; i < 65536; i++) starts[i + 1] += starts[i];
    for (let i = 0; i < count; i++) order[starts[(far - depths[i]) * scale | 0]++] = i;
  }

  // The camera stands at `eye` and sees along the third row of `rotation`; fovy in radians.
  draw({ eye, rotation, fovy, mode, depths }) {
    const { gl, canvas, splats } = this;
    const sharp = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * sharp));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * sharp));
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    if (!splats) return;
    const forward = rotation.slice(6), seen = [...eye, ...forward].join();
    if (this.sorted !== seen) {
      this.sort(eye, forward);
      gl.bufferData(gl.ARRAY_BUFFER, this.order, gl.DYNAMIC_DRAW);
      this.sorted = seen;
    }
    gl.uniformMatrix3fv(this.place("rotation"), true, rotation);
    gl.uniform3fv(this.place("eye"), eye);
    gl.uniform2f(this.place("size"), canvas.width, canvas.height);
    gl.uniform1f(this.place("focal"), Math.min(canvas.height, canvas.width) / 2 / Math.tan(fovy / 2));
    gl.uniform1i(this.place("mode"), mode);
    gl.uniform2fv(this.place("depths"), depths);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, splats.count);
  }
}
