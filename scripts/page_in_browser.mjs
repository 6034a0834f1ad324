// Opens a page of `oneactor gallery`, `story` or `evaluate --report` in headless Chromium, and checks what no
// test of the suite can check: that the page requests nothing from elsewhere, that every picture is whole,
// that a phone shows the full width, and, on a gallery, that the Tab key reaches the commands and selects
// them. Writes desktop.png, dark.png, phone.png and print.pdf into a folder, for looking at.
//
//   node --experimental-websocket scripts/page_in_browser.mjs PAGE.html FOLDER
//
// Requires Node 20.10 or later (22 needs no flag) and Chromium (Debian: apt install chromium); tried with 20.20 and 148.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [page, folder] = process.argv.slice(2);
assert(page && folder, 'expected PAGE.html FOLDER');
const address = pathToFileURL(resolve(page)).href;
const profile = mkdtempSync(join(tmpdir(), 'page-in-browser-'));
const browser = spawn('chromium', [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', `--user-data-dir=${profile}`, '--remote-debugging-port=0', 'about:blank',
], { stdio: 'ignore' });
const ended = new Promise((done) => browser.once('exit', done).once('error', done));
let refused = null;
browser.once('error', (error) => { refused = error; });
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** Returns the result of `find` as soon as there is one. */
async function once(find, what) {
  for (let turn = 0; turn < 600; turn++) {
    if (refused) throw new Error(`chromium cannot be started: ${refused.message}`);
    const found = await Promise.resolve().then(find).catch(() => null);
    if (found) return found;
    await pause(100);
  }
  throw new Error(`no ${what} within a minute`);
}

try {
  const port = await once(() => readFileSync(join(profile, 'DevToolsActivePort'), 'utf8').split('\n')[0], 'browser');
  const targets = () => fetch(`http://127.0.0.1:${port}/json`).then((answer) => answer.json());
  const tab = await once(async () => (await targets()).find((target) => target.type === 'page'), 'tab');
  const socket = new WebSocket(tab.webSocketDebuggerUrl);
  await new Promise((done) => { socket.onopen = done; });
  const answers = new Map();
  const requests = [];
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    answers.get(message.id)?.(message);
    if (message.method === 'Network.requestWillBeSent') requests.push(message.params.request.url);
  };
  let last = 0;
  const send = async (method, params = {}) => {
    const id = ++last;
    const answer = new Promise((done) => answers.set(id, done));
    socket.send(JSON.stringify({ id, method, params }));
    const { result, error } = await answer;
    assert(!error, `${method}: ${error?.message}`);
    return result;
  };
  const value = async (expression) =>
    (await send('Runtime.evaluate', { expression, returnByValue: true })).result.value;
  const press = async (key, code, text) => {
    const event = { key, code: key, windowsVirtualKeyCode: code, text };
    await send('Input.dispatchKeyEvent', { type: 'keyDown', ...event });
    await send('Input.dispatchKeyEvent', { type: 'keyUp', ...event });
  };
  const screen = async (name, width, scheme, mobile) => {
    await send('Emulation.setDeviceMetricsOverride', { width, height: 900, deviceScaleFactor: 1, mobile });
    await send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
    await pause(300);
    const shot = await send('Page.captureScreenshot', { format: 'png' });
    writeFileSync(join(folder, name), Buffer.from(shot.data, 'base64'));
  };

  mkdirSync(folder, { recursive: true });
  await send('Network.enable');
  await send('Page.enable');
  const started = Date.now();
  await send('Page.navigate', { url: address });
  await once(() => value(`location.href === ${JSON.stringify(address)} && document.readyState === "complete"`), 'page');
  console.log(`open after ${Date.now() - started} ms`);

  await screen('desktop.png', 1200, 'light', false);
  await screen('dark.png', 1200, 'dark', false);
  await screen('phone.png', 390, 'light', true);
  assert(await value('document.documentElement.scrollWidth') <= 390, 'a phone must show the full width');
  if (await value('document.querySelector("summary") !== null')) {
    do await press('Tab', 9); while (await value('document.activeElement.tagName') !== 'SUMMARY');
    await press('Enter', 13, '\r');
    await pause(100);
    await press('Tab', 9);
    const selected = await value('{ const e = document.activeElement; e.value?.slice(e.selectionStart, e.selectionEnd) }');
    assert.match(selected ?? '', /^oneactor sample --from /, 'the Tab key must select a command');
    console.log(`the Tab key selects: ${selected}`);
  }
  const paper = await send('Page.printToPDF', { printBackground: false });
  writeFileSync(join(folder, 'print.pdf'), Buffer.from(paper.data, 'base64'));
  const broken = 'Array.from(document.images).filter((image) => image.complete && image.naturalWidth === 0).length';
  assert.equal(await value(broken), 0, 'every picture must be whole');
  const others = requests.filter((url) => url !== address && !url.startsWith('data:'));
  assert.deepEqual(others, [], 'nothing must be requested from elsewhere');
  console.log(`${await value('document.images.length')} pictures, nothing requested from elsewhere`);
  socket.close();
} finally {
  browser.kill();
  await ended;
  rmSync(profile, { recursive: true, force: true });
}
