// The page around the splats: one camera for all of them, one timeline, what made each.
"use strict";

const { results, distance } = JSON.parse(document.getElementById("results").textContent);
const FOVY = Math.PI / 4, HOME = { azimuth: 0, elevation: 0.26, distance, target: [0, 0, 0] };
const camera = structuredClone(HOME), panels = [];
const MODES = ["colour", "depth", "alpha", "centres"];
let turning = 0, asked = false, mode = 0;  // turning: radians a frame

// Text is only ever set as text: a prompt is no HTML.
function make(tag, parent, properties = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  parent?.append(element);
  return element;
}

// The camera is one for all results, in units of each result's own ball: its middle and its radius.
function pose({ center, radius } = { center: [0, 0, 0], radius: 1 }) {
  const { azimuth: a, elevation: e, distance: d, target } = camera;
  const back = [Math.cos(e) * Math.sin(a), Math.sin(e), Math.cos(e) * Math.cos(a)];
  const right = [Math.cos(a), 0, -Math.sin(a)];
  const down = [Math.sin(e) * Math.sin(a), -Math.cos(e), Math.sin(e) * Math.cos(a)];
  const eye = target.map((value, i) => center[i] + radius * (value + d * back[i]));
  const depths = [radius * (d - 1), radius * (d + 1)];
  return { eye, rotation: [...right, ...down, ...back.map((value) => -value)], fovy: FOVY, mode, depths };
}

function draw() {
  asked = false;
  camera.azimuth += turning;
  for (const { panel, result } of panels) panel?.draw(pose(result.frame));
  if (turning) redraw();
}

function redraw() {
  if (!asked) requestAnimationFrame(draw);
  asked = true;
}

function look(changed) {
  Object.assign(camera, changed);
  camera.elevation = Math.min(Math.max(camera.elevation, -1.5), 1.5);
  camera.distance = Math.min(Math.max(camera.distance, distance / 50), distance * 20);
  redraw();
}

function pan(dx, dy, side) {
  const { rotation } = pose(), unit = (2 * camera.distance * Math.tan(FOVY / 2)) / side;
  look({ target: camera.target.map((value, i) => value - unit * (dx * rotation[i] + dy * rotation[3 + i])) });
}

function listen(canvas) {
  const fingers = new Map();
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", () => look(structuredClone(HOME)));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    look({ distance: camera.distance * Math.exp(event.deltaY / 800) });
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    turn(false);
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => fingers.delete(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const span = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
    const dx = event.clientX - before[0], dy = event.clientY - before[1];
    const apart = fingers.size === 2 ? span() : 0, side = Math.min(canvas.clientWidth, canvas.clientHeight);
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (fingers.size === 2) {
      look({ distance: (camera.distance * apart) / Math.max(span(), 1) });
      pan(dx / 2, dy / 2, side);
    } else if (event.shiftKey || event.buttons & 2) pan(dx, dy, side);
    else look({ azimuth: camera.azimuth - dx / 150, elevation: camera.elevation + dy / 150 });
  });
}

// At the fraction `when` of every result's timeline.
async function show(when) {
  await Promise.all(panels.map(async (entry) => {
    const { frames } = entry.result, wanted = Math.round(when * (frames.length - 1));
    if (!entry.panel || entry.wanted === wanted) return;
    entry.wanted = wanted;
    entry.unpacked[wanted] ??= unpackSpz(frames[wanted].spz);
    const splats = await entry.unpacked[wanted];
    if (entry.wanted !== wanted) return;  // a later wish came first
    entry.panel.load(splats);
    entry.label.textContent = `${frames[wanted].label} \u00b7 ${splats.count.toLocaleString("en")} splats`;
    for (const mark of entry.marks) mark(frames[wanted].step);
  }));
  redraw();
}

function table(parent, rows) {
  const body = make("table", parent);
  for (const [name, value] of Object.entries(rows)) {
    const row = make("tr", body);
    make("th", row, { textContent: name });
    make("td", row, { textContent: value });
  }
}

// A curve over the steps; returns how to move its mark.
function curve(parent, name, points) {
  const figure = make("figure", parent, { className: "curve" });
  const [first, last] = [points[0][0], points.at(-1)[0]], values = points.map(([, value]) => value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const x = (step) => (100 * (step - first)) / Math.max(last - first, 1e-9);
  const y = (value) => 30 - (28 * (value - low)) / Math.max(high - low, 1e-9);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 32");
  svg.setAttribute("preserveAspectRatio", "none");
  for (const [tag, set] of [["polyline", { points: points.map(([s, v]) => `${x(s)},${y(v)}`).join(" ") }], ["line", { y1: 0, y2: 32 }]]) {
    const element = document.createElementNS(svg.namespaceURI, tag);
    for (const [key, value] of Object.entries(set)) element.setAttribute(key, value);
    svg.append(element);
  }
  figure.append(svg);
  const format = (value) => Number(value.toPrecision(3)).toLocaleString("en");
  make("figcaption", figure, { textContent: `${name}: ${format(values[0])} to ${format(values.at(-1))}` });
  return (step) => { for (const end of ["x1", "x2"]) svg.lastChild.setAttribute(end, x(Math.min(step ?? last, last))); };
}

function build(result, parent) {
  const section = make("section", parent);
  if (results.length > 1) make("h2", section, { textContent: result.title });
  const canvas = make("canvas", section, { tabIndex: 0 });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${result.title}, a 3D splat; arrow keys turn it, plus and minus zoom, Home shows its front`);
  const beside = make("div", section, { className: "beside" });
  const label = make("p", beside, { className: "label" });
  const entry = { result, canvas, label, unpacked: {}, marks: [], wanted: null };
  if (!result.frames.length) {
    canvas.remove();
  } else {
    try {
      entry.panel = new Panel(canvas);
      listen(canvas);
      new ResizeObserver(redraw).observe(canvas);
    } catch (error) {
      canvas.remove();
      label.textContent = `The splats cannot be shown: ${error.message}.`;
    }
  }
  files(result, beside);
  for (const [name, picture] of Object.entries(result.pictures)) make("img", beside, { src: picture, alt: name });
  if (Object.keys(result.scores).length) table(make("div", beside), result.scores);
  const curves = make("div", beside, { className: "curves" });
  for (const [name, points] of Object.entries(result.curves)) entry.marks.push(curve(curves, name, points));
  const details = make("details", beside, { open: results.length === 1 });
  make("summary", details, { textContent: "How it was made" });
  table(details, result.facts);
  if (result.settings) {
    const all = make("details", details);
    make("summary", all, { textContent: "All settings" });
    make("pre", all, { textContent: result.settings });
  }
  panels.push(entry);
}

function save(name, blob) {
  const link = make("a", null, { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// What can be had: the splat is inside this page, other files may lie beside it.
function files(result, parent) {
  if (!result.frames.length) return;
  const box = make("div", parent);
  make("h3", box, { textContent: "Download" });
  const row = make("div", box, { className: "files" });
  make("button", row, { textContent: "splat.spz", title: "inside this page; for Spark, SuperSplat, Scaniverse" }).onclick = async () => {
    const bytes = Uint8Array.from(atob(result.frames.at(-1).spz), (letter) => letter.charCodeAt(0));
    save("splat.spz", new Blob([bytes]));
  };
  if (!result.files.length) return;
  const links = result.files.map((name) => make("a", row, { className: "file", href: name, download: name, textContent: name }));
  const said = make("small", box, { textContent: "splat.spz is inside this page; the others lie beside it." });
  // From disk only a picture tells whether it is there; where one is missing the page came alone.
  const picture = location.protocol === "file:" && result.files.find((name) => /\.(png|webp)$/.test(name));
  if (picture) make("img", null, { src: picture }).onerror = () => {
    for (const link of links) link.remove();
    said.textContent = `splat.spz is inside this page; ${result.files.join(", ")} stayed where it was made.`;
  };
}

// What the first canvas shows, before its background.
function picture() {
  const { canvas } = panels.find(({ panel }) => panel), shot = make("canvas", null, { width: canvas.width, height: canvas.height });
  const pen = shot.getContext("2d"), ground = getComputedStyle(canvas);
  const shades = ground.backgroundImage.match(/rgba?\([^)]*\)/g) ?? [ground.backgroundColor];
  const fill = pen.createLinearGradient(0, 0, 0, shot.height);
  shades.forEach((shade, i) => fill.addColorStop(i / Math.max(shades.length - 1, 1), shade));
  pen.fillStyle = fill;
  pen.fillRect(0, 0, shot.width, shot.height);
  pen.drawImage(canvas, 0, 0);
  return shot;
}

let turn = () => {};

function tools(parent) {
  const bar = make("nav", parent);
  const spin = make("button", bar, { textContent: "Turn", title: "the camera goes round the object" });
  turn = (on, pace = 0.012) => {
    turning = on ? pace : 0;
    spin.setAttribute("aria-pressed", on);
    if (on) redraw();
  };
  turn(false);
  spin.onclick = () => turn(!turning);
  make("button", bar, { textContent: "Front" }).onclick = () => look(structuredClone(HOME));
  const choose = (name, values, chosen) => {
    const list = make("select", bar, { title: name });
    list.setAttribute("aria-label", name);
    for (const value of values) make("option", list, { textContent: value });
    list.onchange = () => { chosen(list.value); redraw(); };
  };
  choose("what is shown", MODES, (value) => {
    mode = MODES.indexOf(value);
    document.body.dataset.mode = value;
  });
  choose("background", ["light", "white", "dark"], (value) => { document.body.dataset.ground = value; });
  make("button", bar, { textContent: "Save PNG" }).onclick = () => {
    for (const { panel, result } of panels) panel?.draw(pose(result.frame));
    picture().toBlob((blob) => save("splat.png", blob));
  };
  const hint = make("p", parent, { className: "hint" });
  make("span", hint, { className: "mouse", textContent: "drag: turn \u00b7 wheel: zoom \u00b7 shift-drag: move \u00b7 double click: front" });
  make("span", hint, { className: "fingers", textContent: "one finger: turn \u00b7 two: move and zoom \u00b7 double tap: front" });
}

function timeline(parent) {
  const bar = make("div", parent, { className: "steps" });
  const play = make("button", bar, { textContent: "Play training" });
  const label = make("label", bar, { textContent: "steps" });
  const slider = make("input", label, { type: "range", min: 0, max: 1, step: "any", value: 1 });
  const now = make("output", label);
  const last = Math.max(...results.flatMap(({ frames }) => frames.map(({ step }) => step ?? 0)));
  const move = () => {
    now.textContent = `${Math.round(slider.value * last)} of ${last}`;
    show(Number(slider.value));
  };
  slider.oninput = move;
  move();
  let timer = null;
  play.onclick = () => {
    if (timer) timer = clearInterval(timer);
    else {
      if (slider.value >= 1) slider.value = 0;
      timer = setInterval(() => {
        slider.value = Math.min(1, Number(slider.value) + 0.02);
        move();
        if (slider.value >= 1) play.click();
      }, 60);
    }
    play.textContent = timer ? "Pause training" : "Play training";
  };
  return bar;
}

addEventListener("keydown", (event) => {
  if (event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  const moves = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
  const zooms = { "+": 1 / 1.1, "=": 1 / 1.1, "-": 1.1 };
  if (event.key in moves || event.key in zooms) turn(false);
  if (event.key in moves && event.target.matches("canvas")) {
    event.preventDefault();  // the page itself must not scroll
    const [around, lift] = moves[event.key];
    look({ azimuth: camera.azimuth + around, elevation: camera.elevation + lift });
  } else if (event.key in zooms) look({ distance: camera.distance * zooms[event.key] });
  else if (event.key === "Home" && event.target.matches("canvas")) look(structuredClone(HOME));
});

const main = document.querySelector("main");
document.body.className = results.length > 1 ? "many" : "one";
document.body.classList.toggle("coarse", matchMedia("(pointer: coarse)").matches);
tools(document.querySelector("header"));
for (const result of results) build(result, main);
if (Math.max(...results.map(({ frames }) => frames.length)) > 1) {
  const bar = timeline(results.length > 1 ? document.body : null);
  if (results.length === 1) main.querySelector("canvas")?.after(bar);
}
window.page = { look, show, camera };
// Inside another page, as that of `splat-esd ui`, the splat is alone and turns until it is touched.
if (location.hash === "#inside") {
  document.body.classList.add("inside");
  turn(!matchMedia("(prefers-reduced-motion: reduce)").matches, 0.004);
}
show(1).then(() => requestAnimationFrame(() => { window.ready = true; }), (error) => {
  document.querySelector("header").append(`The splats cannot be read: ${error.message}.`);
  window.failed = String(error.stack);
});
