// node test.mjs PAGE WANTED [--screenshot FILE.png] FILE...: opens the page in the folder PAGE in headless Chromium
// with these files (models, a picture, names of classes), prints its table, and fails unless the first
// class of every model is WANTED.
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";

const [page, wanted, ...rest] = process.argv.slice(2);
const screenshot = rest[0] === "--screenshot" ? rest.splice(0, 2)[1] : null;
const chromium = ["chromium", "chromium-browser", "google-chrome"]
  .find((name) => spawnSync(name, ["--version"]).status === 0);
if (!chromium) {
  console.log("SKIPPED: the page, Chromium is missing");
  process.exit(0);
}

const files = new Map(rest.map((path) => [basename(path), path]));
const types = { html: "text/html", js: "text/javascript", wasm: "application/wasm" };
const server = createServer((request, answer) => {
  const name = decodeURIComponent(new URL(request.url, "http://localhost").pathname.slice(1)) || "index.html";
  try {
    const bytes = readFileSync(files.get(name) ?? join(page, basename(name)));
    answer.writeHead(200, { "content-type": types[name.split(".").pop()] ?? "application/octet-stream" });
    answer.end(bytes);
  } catch {
    answer.writeHead(404).end();
  }
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));

const profile = mkdtempSync(join(tmpdir(), "daq-web-"));
const browser = spawn(chromium, ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=900,1000",
  `--user-data-dir=${profile}`, "--remote-debugging-pipe"], { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
const waiting = new Map();
let [left, last] = ["", 0];
browser.stdio[4].on("data", (data) => {
  const messages = (left + data).split("\0");
  left = messages.pop();
  for (const message of messages.map((text) => JSON.parse(text))) {
    waiting.get(message.id)?.(message.result);
    waiting.delete(message.id);
  }
});
const call = (method, params = {}, sessionId) => new Promise((done) => {
  waiting.set(++last, done);
  browser.stdio[3].write(JSON.stringify({ id: last, method, params, sessionId }) + "\0");
});

let failed = "the page did not end within two minutes";
try {
  const query = [...files.keys()].map((name) => `file=${encodeURIComponent(name)}`).join("&");
  const url = `http://127.0.0.1:${server.address().port}/?${query}`;
  const { targetId } = await call("Target.createTarget", { url });
  const { sessionId } = await call("Target.attachToTarget", { targetId, flatten: true });
  const evaluate = async (expression) =>
    (await call("Runtime.evaluate", { expression, returnByValue: true }, sessionId))?.result?.value;
  for (const end = Date.now() + 120_000; Date.now() < end;) {
    if (await evaluate("document.body?.dataset.done")) {
      failed = await evaluate("document.getElementById('error').textContent");
      break;
    }
    await new Promise((later) => setTimeout(later, 200));
  }
  const rows = await evaluate(`[...document.querySelectorAll("#results tr")].slice(1)
    .map((row) => [...row.cells].map((cell) => cell.innerText.trim().replaceAll("\\n", ", ")))`) ?? [];
  rows.forEach((row) => console.log(row.join(" | ")));
  const models = [...files.keys()].filter((name) => name.endsWith(".daq"));
  if (!failed && rows.length !== models.length) failed = `${rows.length} rows for ${models.length} models`;
  for (const [model, , , classes] of rows) {
    const first = classes?.split(", ")[0].replace(/^[\d.]+ % /, "");
    if (first !== wanted) failed ||= `${model}: "${first}", not "${wanted}"`;
  }
  if (screenshot) {
    const { data } = await call("Page.captureScreenshot", {}, sessionId);
    writeFileSync(screenshot, Buffer.from(data, "base64"));
  }
} finally {
  const gone = new Promise((done) => browser.once("exit", done));
  browser.kill();
  await gone;
  server.close();
  rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
}
if (failed) {
  console.error(failed);
  process.exit(1);
}
