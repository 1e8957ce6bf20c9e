// The page around the splats: one camera for all of them, one timeline, what made each.
"use strict";

const { results, distance } = JSON.parse(document.getElementById("results").textContent);
const FOVY = Math.PI / 4, HOME = { azimuth: 0, elevation: 0.26, distance, target: [0, 0, 0] };
const camera = structuredClone(HOME), panels = [];
let turning = false, asked = false;

// Text is only ever set as text: a prompt is no HTML.
function make(tag, parent, properties = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  parent?.append(element);
  return element;
}

function pose() {
  const { azimuth: a, elevation: e, distance: d, target } = camera;
  const back = [Math.cos(e) * Math.sin(a), Math.sin(e), Math.cos(e) * Math.cos(a)];
  const right = [Math.cos(a), 0, -Math.sin(a)];
  const down = [Math.sin(e) * Math.sin(a), -Math.cos(e), Math.sin(e) * Math.cos(a)];
  const eye = target.map((value, i) => value + d * back[i]);
  return { eye, rotation: [...right, ...down, ...back.map((value) => -value)], fovy: FOVY };
}

function draw() {
  asked = false;
  if (turning) camera.azimuth += 0.012;
  for (const { panel } of panels) panel?.draw(pose());
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

function pan(dx, dy, height) {
  const { rotation } = pose(), unit = (2 * camera.distance * Math.tan(FOVY / 2)) / height;
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
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => fingers.delete(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const span = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
    const dx = event.clientX - before[0], dy = event.clientY - before[1];
    const apart = fingers.size === 2 ? span() : 0;
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (fingers.size === 2) {
      look({ distance: (camera.distance * apart) / Math.max(span(), 1) });
      pan(dx / 2, dy / 2, canvas.clientHeight);
    } else if (event.shiftKey || event.buttons & 2) pan(dx, dy, canvas.clientHeight);
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
  const canvas = make("canvas", section), label = make("p", section, { className: "label" });
  const entry = { result, label, unpacked: {}, marks: [], wanted: null };
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
  for (const [name, picture] of Object.entries(result.pictures)) make("img", section, { src: picture, alt: name });
  if (Object.keys(result.scores).length) table(make("div", section), result.scores);
  const curves = make("div", section, { className: "curves" });
  for (const [name, points] of Object.entries(result.curves)) entry.marks.push(curve(curves, name, points));
  const details = make("details", section, { open: results.length === 1 });
  make("summary", details, { textContent: "How it was made" });
  table(details, result.facts);
  if (result.settings) {
    const all = make("details", details);
    make("summary", all, { textContent: "All settings" });
    make("pre", all, { textContent: result.settings });
  }
  panels.push(entry);
}

function tools(parent) {
  const bar = make("nav", parent);
  const turn = make("button", bar, { textContent: "Turn" });
  turn.onclick = () => { turning = !turning; turn.textContent = turning ? "Stop" : "Turn"; redraw(); };
  make("button", bar, { textContent: "Front" }).onclick = () => look(structuredClone(HOME));
  const grounds = ["white", "grey", "black"];
  make("button", bar, { textContent: "Background" }).onclick = () => {
    grounds.push(grounds.shift());
    document.body.dataset.ground = grounds[0];
  };
  if (Math.max(...results.map(({ frames }) => frames.length)) > 1) timeline(bar);
  make("small", bar, { textContent: "drag: turn \u00b7 wheel: nearer \u00b7 shift-drag: move \u00b7 double click: front" });
}

function timeline(bar) {
  const play = make("button", bar, { textContent: "Play" });
  const slider = make("input", bar, { type: "range", min: 0, max: 1, step: "any", value: 1, title: "training" });
  slider.oninput = () => show(Number(slider.value));
  let timer = null;
  play.onclick = () => {
    if (timer) timer = clearInterval(timer);
    else {
      if (slider.value >= 1) slider.value = 0;
      timer = setInterval(() => {
        slider.value = Math.min(1, Number(slider.value) + 0.02);
        show(Number(slider.value));
        if (slider.value >= 1) play.click();
      }, 60);
    }
    play.textContent = timer ? "Pause" : "Play";
  };
}

addEventListener("keydown", (event) => {
  if (event.target.matches("input")) return;
  const moves = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
  const [turn, lift] = moves[event.key] ?? [0, 0];
  if (event.key in moves) look({ azimuth: camera.azimuth + turn, elevation: camera.elevation + lift });
});

const main = document.querySelector("main");
tools(document.querySelector("header"));
for (const result of results) build(result, main);
window.page = { look, show };
show(1).then(() => requestAnimationFrame(() => { window.ready = true; }), (error) => {
  document.querySelector("header").append(`The splats cannot be read: ${error.message}.`);
  window.failed = String(error.stack);
});
