// The page: a form that asks, a queue, what grows now, what was made. It polls the server's state.
import { ask, make, size, square, STATUS, write } from "/parts.js";
import { words } from "/words.js";

const $ = (id) => document.getElementById(id);
const about = await ask("/api/about");
let shown = null, drawn = "", latest = { now: [], waiting: [], runs: [] };

function wish() {
  const told = { prompt: $("prompt").value, quality: $("quality").value, prior: $("prior").value };
  told.seed = $("seed").value === "" ? null : Number($("seed").value);
  told["guidance.lambda"] = Number($("lambda").value);
  if ($("cfg").value !== "") told["guidance.cfg_scale"] = Number($("cfg").value);
  return told;
}

let checks = 0;
async function check() {
  const mine = ++checks, prompt = $("prompt").value.trim();
  const { problem } = prompt ? await ask("/api/check", wish()) : {};
  if (mine === checks) complain(problem ?? "");
}

function complain(problem) {
  $("problem").textContent = problem;
  $("prompt").setAttribute("aria-invalid", /^(no )?prompt/.test(problem));
}

function form() {
  $("place").textContent = `runs are kept in ${about.out}; this page is for this machine only`;
  for (const quality of about.qualities) make("option", $("quality"), { value: quality, selected: quality === "normal" });
  times();
  for (const prior of Object.keys(about.priors)) make("option", $("prior"), { textContent: prior, selected: prior === about.prior });
  $("lambda").value = about.lambda;
  $("known").open = innerWidth > 860;
  const chosen = () => {
    times();
    $("lambda-now").textContent = $("lambda").value;
    $("cfg").placeholder = about.priors[$("prior").value];
    $("known").hidden = $("prior").value !== "zoo";
  };
  const refresh = words($("words"), $("prompt"), about.words, make);
  let timer;
  $("form").addEventListener("input", () => {
    chosen();
    refresh();
    clearTimeout(timer);
    timer = setTimeout(check, 200);
  });
  chosen();
  $("another").onclick = () => { $("seed").value = Math.floor(Math.random() * 100000); };
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey) return;
    event.preventDefault();
    $("form").requestSubmit();
  });
  $("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    clearTimeout(timer);
    checks += 1;  // an earlier answer is not of this wish
    const { problem, run, said } = await ask("/api/make", wish());
    complain(problem ?? "");
    $("answer").textContent = problem ? "" : said || "It is in the queue.";
    if (problem) return $("prompt").focus();
    if (said) show(run);
    poll();
  });
}

// What each quality took here: the middle one of the finished runs with this prior.
function times() {
  for (const option of $("quality").options) {
    const alike = latest.runs.filter(({ seconds, quality, prior }) => seconds && quality === option.value && prior === $("prior").value);
    const middle = alike.map(({ seconds }) => seconds).sort((a, b) => a - b)[Math.floor(alike.length / 2)];
    const took = middle < 90 ? `${Math.round(middle)} s` : `${Math.round(middle / 60)} min`;
    option.textContent = middle ? `${option.value}, ${took}` : option.value;
  }
}

const method = (run) => `${run.quality}, ${run.guidance}${run.lambda === null ? "" : ` \u03bb ${run.lambda}`}, CFG ${run.cfg}`;

function button(parent, text, act, label = text) {
  const made = make("button", parent, { type: "button", textContent: text }, ["aria-label", label]);
  made.onclick = async () => {
    made.disabled = true;
    const { problem } = await act();
    $("answer").textContent = problem ?? "";
    poll();
  };
  return made;
}

function queue({ now, waiting, runs }) {
  const lines = [...now.filter((run) => run.mine).map((run) => [run, "running"])];
  for (const name of waiting) lines.push([runs.find(({ run }) => run === name), "waiting"]);
  $("queue").replaceChildren();
  for (const [run, status] of lines) {
    if (!run) continue;
    const line = make("li", $("queue"), {}, ["data-status", status]);
    make("span", line, { textContent: `${run.prompt} \u00b7 seed ${run.seed} \u00b7 ${status}` });
    const stops = status === "running" ? "Stop and save" : "Take out";
    const stop = button(line, stops, () => ask("/api/stop", { run: run.run }), `${stops}: ${run.prompt}, seed ${run.seed}`);
    if (run.stopping) Object.assign(stop, { disabled: true, textContent: "saving" });
  }
  if (!lines.length) make("li", $("queue"), { className: "small", textContent: "Nothing is waiting. Runs are made one at a time." });
}

function running({ now }) {
  const kept = new Map([...$("running").children].map((one) => [one.dataset.run, one]));
  for (const one of kept.values()) if (!now.some(({ run }) => run === one.dataset.run)) one.remove();
  for (const run of now) {
    const box = kept.get(run.run) ?? begun(run);
    const doing = run.stopping ? "saving the state" : run.step < run.steps ? run.said : run.said || "writing the files";
    const left = run.left && run.step < run.steps ? ` \u00b7 ${run.left} left` : "";
    box.querySelector(".step").textContent = `step ${run.step} of ${run.steps}${left}`;
    box.querySelector(".said").textContent = run.mine ? doing : "started elsewhere; stop it there";
    Object.assign(box.querySelector("progress"), { max: run.steps ?? 1, value: run.step });
    if (run.preview && box.dataset.preview !== run.preview) {
      box.dataset.preview = run.preview;
      const canvas = box.querySelector("canvas");
      [[0, 0], [3, 0], [0, 1], [3, 1]].forEach((tile, i) =>
        square(canvas, run.address + run.preview, true, tile, [(i % 2) / 2, Math.floor(i / 2) / 2, 0.5]));
    }
  }
}

function begun(run) {
  const box = make("article", $("running"));
  box.dataset.run = run.run;
  make("canvas", box, { width: 512, height: 512 }, ["role", "img"], ["aria-label", `${run.prompt} so far: front, left, back, right`]);
  const told = make("div", box);
  make("p", told, { textContent: `${run.prompt} \u00b7 seed ${run.seed}` });
  make("progress", told, {}, ["aria-label", "steps done"]);
  make("p", told, { className: "step" });
  make("p", told, { className: "said small" }, ["role", "status"]);
  make("p", told, { className: "hint", textContent: "Seen from the front, the left, the back and the right; the first picture comes after a twelfth of the run." });
  return box;
}

const cards = new Map();

function gallery({ runs }) {
  const focused = document.activeElement?.dataset.run;
  const lines = runs.map((run) => {
    const told = JSON.stringify(run);
    if (cards.get(run.run)?.told !== told) cards.set(run.run, { told, line: card(run) });
    return cards.get(run.run).line;
  });
  $("gallery").replaceChildren(...lines);
  lines.find((line) => line.firstChild.dataset.run === focused)?.firstChild.focus();
  if (!runs.length) make("li", $("gallery"), { className: "small", textContent: "Nothing was made here yet." });
}

function card(run) {
  const line = make("li"), pressed = ["aria-pressed", run.run === shown];
  const made = make("button", line, { type: "button", className: "card" }, pressed);
  made.dataset.run = run.run;
  const canvas = make("canvas", made, { width: 256, height: 256 }, ["aria-hidden", "true"]);
  const picture = run.picture ?? run.preview;
  if (picture) square(canvas, run.address + picture, !run.picture);
  else write(canvas, "no picture yet");
  make("span", made, { textContent: run.prompt });
  make("span", made, { className: "small", textContent: `seed ${run.seed} \u00b7 ${run.quality}` });
  make("span", made, { className: `status ${run.status}`, textContent: STATUS[run.status] ?? run.status });
  made.onclick = () => {
    show(run.run);
    $("shown").scrollIntoView({ block: "nearest" });
  };
  return line;
}

function show(name) {
  shown = name;
  for (const card of document.querySelectorAll(".card")) card.setAttribute("aria-pressed", card.dataset.run === name);
  details();
}

// Rebuilt only when the run it shows has changed: a splat that is being turned is left alone.
function details() {
  const run = latest.runs.find((one) => one.run === shown);
  $("shown").hidden = !run;
  const now = JSON.stringify(run ?? null);
  if (now === drawn) return;
  drawn = now;
  for (const part of ["shown-title", "look", "take"]) $(part).replaceChildren();
  if (!run) return;
  make("span", $("shown-title"), { textContent: `${run.prompt} \u00b7 seed ${run.seed}` });
  button($("shown-title"), "Close", () => { show(null); return {}; });
  make("p", $("take"), { className: "small", textContent: `${method(run)} \u00b7 ${STATUS[run.status] ?? run.status} \u00b7 ${run.run}` });
  if (run.why) make("p", $("take"), { className: "problem", textContent: run.why });
  const row = make("div", $("take"), { className: "files" });
  if (["new", "interrupted", "failed"].includes(run.status)) {
    const text = run.status === "new" ? "Start" : "Continue";
    button(row, text, () => ask("/api/go-on", { run: run.run })).className = "main";
  }
  if (run.viewer) {
    const title = `${run.prompt}: turns until it is touched`;
    make("iframe", $("look"), { src: `${run.address}viewer.html#inside`, title });
    make("a", row, { className: "file", href: `${run.address}viewer.html`, target: "_blank", rel: "noopener", textContent: "Open viewer.html" });
  } else if (run.preview) make("img", $("look"), { src: run.address + run.preview, alt: `${run.prompt}, the last preview` });
  for (const file of run.files) {
    const link = make("a", row, { className: "file", href: run.address + file.address, download: file.name, title: `for ${file.opens}` });
    link.append(`${file.name} `);
    make("small", link, { textContent: size(file.bytes) });
  }
}

let timer, before = "", polls = 0;

function tell(found) {
  const runs = JSON.stringify(found.runs), ahead = JSON.stringify([found.waiting, found.now.map(({ run, stopping }) => [run, stopping])]);
  const ended = latest.now.find(({ run }) => found.runs.some((one) => one.run === run && one.status === "finished"));
  latest = found;
  if (ended && !shown) show(ended.run);
  running(found);
  if (runs + ahead !== before) {
    times();
    queue(found);
    gallery(found);
    details();
  }
  before = runs + ahead;
}

async function poll() {
  clearTimeout(timer);
  const mine = ++polls;
  const found = await ask("/api/state");
  if (mine !== polls) return;  // a newer answer is on its way
  $("lost").hidden = !found.problem;
  if (!found.problem) tell(found);
  timer = setTimeout(poll, document.hidden ? 5000 : 1000);
}

form();
await poll();
document.addEventListener("visibilitychange", () => document.hidden || poll());
window.ready = true;
