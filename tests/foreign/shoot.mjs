// Opens a page in headless Chromium and takes its picture:  node shoot.mjs '{"page": ..., ...}'
//
//   page       a file of this folder, served on 127.0.0.1; or a whole address, opened as it is
//   query      what the page is told, after the ?
//   data       a folder served as /data/
//   width, height, out     of the picture; no picture without `out`
//   phone      whether the screen is touched
//   dark       whether the reader wants dark pages
//   keys       pressed after the actions; where each leaves the focus is in `focused`
//   actions    JavaScript run in the page, one after the other, once it is ready; what they return
//              is in `returned`
//
//   ready      an expression that is true once the page can be used, where it does not say so
//   allowed    addresses that it may ask, beside its own
//
// A page says `ready = true` when it has drawn, or `failed = "why"`. Printed as JSON: `asked`, what
// it wanted from elsewhere (and did not get); `errors`; `returned`.
import { readFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { createServer } from "node:http";
import { delimiter, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import puppeteer from "puppeteer-core";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const SOFTWARE_GL = [
  "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist",
  "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
  "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
  "--force-color-profile=srgb", "--hide-scrollbars",
];

async function chromium() {
  const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
  const places = process.env.PATH.split(delimiter).flatMap((folder) => names.map((name) => join(folder, name)));
  const found = [process.env.CHROMIUM, ...places].find((path) => path && existsSync(path));
  if (found) return { executablePath: found, args: SOFTWARE_GL };
  const { default: packed } = await import("@sparticuz/chromium");
  return { executablePath: await packed.executablePath(), args: [...packed.args, ...SOFTWARE_GL] };
}

function serve(data) {
  const roots = { "/data/": data, "/modules/": join(HERE, "node_modules"), "/": HERE };
  const server = createServer(async (request, response) => {
    if (request.url === "/favicon.ico") return response.writeHead(204).end();
    const path = normalize(decodeURIComponent(new URL(request.url, "http://x").pathname));
    const prefix = Object.keys(roots).find((root) => path.startsWith(root));
    try {
      const body = await readFile(join(roots[prefix], path.slice(prefix.length)));
      const type = TYPES[extname(path)] ?? "application/octet-stream";
      response.writeHead(200, { "Content-Type": type, "Content-Length": body.length });
      response.end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  return new Promise((done) => server.listen(0, "127.0.0.1", () => done(server)));
}

const job = JSON.parse(process.argv[2]);
const server = await serve(job.data ?? HERE);
const own = `http://127.0.0.1:${server.address().port}`;
const browser = await puppeteer.launch({ headless: true, ...(await chromium()) });
const told = { asked: [], errors: [], returned: [], focused: [] };
try {
  const page = await browser.newPage();
  const touched = { isMobile: job.phone ?? false, hasTouch: job.phone ?? false };
  await page.setViewport({ width: job.width ?? 256, height: job.height ?? 256, ...touched });
  const query = new URLSearchParams(job.query ?? {});
  const address = job.page.includes("://") ? job.page : `${own}/${job.page}?${query}`;
  const own_or_inside = [own, "data:", "blob:", ...(job.allowed ?? [])];
  if (job.dark) await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "dark" }]);
  page.on("request", (request) => {
    const url = request.url();
    if (url !== address && !own_or_inside.some((start) => url.startsWith(start))) told.asked.push(url);
  });
  page.on("pageerror", (error) => told.errors.push(String(error)));
  page.on("console", (line) => line.type() === "error" && told.errors.push(line.text()));
  await page.goto(address);
  const ready = job.ready ?? "window.failed || window.ready";
  const waited = page.waitForFunction(ready, { timeout: 120000 });
  const state = await waited.then((handle) => handle.jsonValue(), String);
  if (state !== true) told.errors.push(state);
  for (const action of job.actions ?? []) told.returned.push((await page.evaluate(action)) ?? null);
  for (const key of job.keys ?? []) {
    await page.keyboard.press(key);
    told.focused.push(await page.evaluate("document.activeElement.id || document.activeElement.textContent"));
  }
  if (job.out) await page.screenshot({ path: job.out });
} finally {
  await browser.close();
  server.close();
}
console.log(JSON.stringify(told));
