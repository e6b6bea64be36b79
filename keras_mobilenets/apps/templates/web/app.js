// The page: where pictures come from, and what is shown of an answer. What an answer means, tasks/ knows.
import { boxOf, open, pixelsOf, sizeOf } from "./image.js";
import { hasGpu, openModel } from "./model.js";

const [SMALLEST_SHOWN, LARGEST_SHOWN] = [480, 1280]; // side of the picture on the page
const element = Object.fromEntries([...document.querySelectorAll("[id]")].map((one) => [one.id, one]));
const about = await (await fetch("model.json")).json();
const task = await import(`./tasks/${about.task}.js`);
let model = null;
let stream = null;
let facing = "environment";
let last = null; // the picture that is shown, to be asked about again on another device
let turn = Promise.resolve(); // one picture after the other

const inTurn = (work) => (turn = turn.then(work).catch((error) => say(error.message, true)));

function say(text, bad = false) {
  element.status.textContent = text;
  element.status.classList.toggle("bad", bad);
}

/** Asks the model about a picture or a frame of the camera, and shows both. */
export async function analyse(source) {
  const began = performance.now();
  const box = boxOf(sizeOf(source), about.input, about.crops);
  const pixels = pixelsOf(source, box, about.input);
  const prepared = performance.now();
  const outputs = await model.run(pixels);
  const ran = performance.now();
  const answer = task.answer(outputs, about);
  const decoded = performance.now();
  draw(source, box);
  task.show(answer, about, { result: element.result, picture: element.picture, overlay: element.overlay });
  const spent = (ran - prepared).toFixed(1);
  say(`Model ${spent} ms, picture ${(prepared - began + decoded - ran).toFixed(1)} ms.`);
  return answer;
}

/** The picture on the page, what the model does not see of it darkened. */
function draw(source, [left, top, boxWidth, boxHeight]) {
  const [width, height] = sizeOf(source);
  const side = Math.max(width, height);
  const scale = Math.min(Math.max(side, SMALLEST_SHOWN), LARGEST_SHOWN) / side;
  for (const canvas of [element.picture, element.overlay]) {
    [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
  }
  const context = element.picture.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, element.picture.width, element.picture.height);
  context.drawImage(source, 0, 0, element.picture.width, element.picture.height);
  context.fillStyle = "rgb(0 0 0 / 0.45)";
  context.beginPath();
  context.rect(0, 0, element.picture.width, element.picture.height);
  context.rect(left * scale, top * scale, boxWidth * scale, boxHeight * scale);
  context.fill("evenodd");
  element.stage.hidden = false;
  element.hint.hidden = true;
  element.drop.classList.add("full");
}

function take(file) {
  if (!file) return;
  stopCamera();
  inTurn(async () => {
    const picture = await open(file);
    last?.close();
    last = picture;
    await analyse(picture);
  });
}

async function startCamera() {
  if (!navigator.mediaDevices) throw new Error("The camera needs a page that comes by https, or from this machine.");
  const found = await navigator.mediaDevices.getUserMedia({ video: { facingMode: facing, width: { ideal: 1280 } } });
  const video = Object.assign(document.createElement("video"), { srcObject: found, muted: true, playsInline: true });
  await video.play();
  stream = found;
  cameraIs(true);
  const devices = await navigator.mediaDevices.enumerateDevices();
  element.turn.hidden = devices.filter(({ kind }) => kind === "videoinput").length < 2;
  const next = async () => {
    if (stream !== found) return;
    if (video.videoWidth && !document.hidden) await inTurn(() => stream === found && analyse(video));
    requestAnimationFrame(next);
  };
  next();
}

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  cameraIs(false);
}

function cameraIs(on) {
  element.camera.textContent = on ? "Stop the camera" : "Camera";
  element.camera.setAttribute("aria-pressed", on);
  element.result.setAttribute("aria-live", on ? "off" : "polite"); // nobody can listen to thirty answers a second
  if (!on) element.turn.hidden = true;
}

const camera = () => startCamera().catch(({ message }) => say(`No camera: ${message}`, true));

async function choose(device) {
  say("Loading the model …");
  const opened = await openModel(about, device);
  model?.close();
  model = opened;
  element.device.value = device;
  say("Ready.");
  if (last && !stream) await analyse(last);
}

element.choose.addEventListener("click", () => element.file.click());
element.file.addEventListener("change", () => {
  take(element.file.files[0]);
  element.file.value = ""; // the same file can be chosen again
});
element.camera.addEventListener("click", () => (stream ? stopCamera() : camera()));
element.turn.addEventListener("click", () => {
  facing = facing === "environment" ? "user" : "environment";
  stopCamera();
  camera();
});
element.device.addEventListener("change", () => {
  const before = element.device.value === "wasm" ? "webgpu" : "wasm";
  inTurn(() => choose(element.device.value).catch((error) => ((element.device.value = before), Promise.reject(error))));
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    element.drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") take([...event.dataTransfer.files].find(({ type }) => type.startsWith("image/")) ?? event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));

/** Keeps what the page consists of, so that it opens without a network; worker.js gives it then. */
async function keep() {
  if (!("serviceWorker" in navigator)) return;
  await navigator.serviceWorker.register("worker.js");
  const used = performance.getEntriesByType("resource").map(({ name }) => name);
  const here = new URL("./", document.baseURI);
  const own = used.filter((name) => name.startsWith(here.href));
  await (await caches.open(here.pathname)).addAll([...new Set([here.href, ...own])]);
}

inTurn(async () => {
  const gpu = await hasGpu();
  element.devices.hidden = !gpu;
  // Integer files compute the same everywhere on the CPU; float ones are faster on a GPU.
  await (gpu && !about.integer ? choose("webgpu").catch(() => choose("wasm")) : choose("wasm"));
  element.choose.disabled = element.camera.disabled = false;
  document.documentElement.dataset.ready = "";
  keep().catch(() => {}); // without it the page works as well, with a network
});
