import { fillBars, percent } from "./bars.js";
import { readClip } from "./clip.js";
import { asClip, Film } from "./film.js";
import { Model } from "./model.js";
import { Stage } from "./skeleton.js";

const at = (id) => document.getElementById(id);
const FILM_RATE = 15; // frames a second that are looked at in a video
const SHOWN = 5;
const state = { clip: null, windows: [], answer: null, frame: 0, playing: false, live: null, threshold: 0, job: 0 };
const stage = new Stage(at("skeleton"));
let facts, models = {}, film;

function say(words, bad = false) {
  at("status").textContent = words;
  at("status").classList.toggle("bad", bad);
}

const whole = (value) => `${(100 * value).toFixed(0)} %`;
const rate = () => Math.max(1, Number(at("fps").value) || 30);

function setThreshold(value) {
  state.threshold = value;
  at("below").textContent = whole(value);
}

// What is begun last counts: a film that is still being read, or a clip, gives way to what is opened behind it.
const begun = () => { const job = ++state.job; return () => job === state.job; };

async function begin() {
  facts = await (await fetch("page.json")).json();
  document.title = at("title").textContent = facts.name;
  at("score").textContent = facts.score;
  if (facts.score === "familiarity") at("threshold").min = -1;
  at("threshold").value = facts.threshold ?? 0;
  setThreshold(facts.threshold ?? 0); // as it is: a slider rounds
  models.own = await Model.load("model.onnx", facts.own, facts.score);
  if (facts.film) models.film = facts.film.graph === "model.onnx" ? models.own : null;
  document.querySelectorAll(".film").forEach((part) => { part.hidden = !facts.film; });
  say(`ready: ${facts.class_names.length} classes, joints of ${facts.own.layout}`);
  document.body.dataset.ready = "yes";
}

async function open(file) {
  const current = begun();
  stopCamera();
  play(false);
  try {
    if (file.type.startsWith("video/") || /\.(mp4|webm|mov|avi)$/i.test(file.name)) await openFilm(file, current);
    else {
      at("video").hidden = true;
      say(`reading ${file.name} …`);
      const clip = await readClip(file, facts.own.names);
      if (current()) await judge(clip, models.own, facts.own, file.name, current);
    }
  } catch (error) {
    if (current()) say(error.message, true);
  }
}

async function readyForFilm() {
  if (!facts.film) throw new Error("this page was made without pose weights: skeleton files only");
  models.film ??= await Model.load(facts.film.graph, facts.film, facts.score);
  film ??= await Film.load(at("video"));
}

async function openFilm(file, current) {
  Object.assign(state, { clip: null, windows: [], answer: null }); // its controls would seek in the film that is read
  bars();
  timeline();
  say("loading the pose estimator …");
  const video = at("video");
  URL.revokeObjectURL(video.src);
  video.src = URL.createObjectURL(file);
  video.hidden = false;
  await new Promise((resolve, reject) => {
    video.onloadeddata = resolve;
    video.onerror = () => reject(new Error(`${file.name} cannot be decoded by this browser`));
  });
  await readyForFilm();
  if (!current()) return;
  at("fps").value = FILM_RATE;
  const clip = await film.read(FILM_RATE, (done) => say(`looking at ${file.name}: ${percent(done)}`), current);
  if (current()) await judge(clip, models.film, facts.film, file.name, current);
}

async function judge(clip, model, skeleton, name, current = begun()) {
  Object.assign(state, { clip, model, skeleton, windows: [], frame: 0, name });
  const slider = at("time");
  slider.max = clip.frames - 1;
  slider.disabled = at("play").disabled = false;
  show(0);
  const started = performance.now();
  const answer = await model.classify(clip);
  const took = performance.now() - started;
  if (!current()) return;
  state.answer = answer;
  bars();
  const span = Number(at("span").value) * rate();
  const tell = (done) => { if (current()) say(`${name}: ${percent(Math.min(1, done))}`); };
  const windows = clip.frames > 1.5 * span ? await model.overTime(clip, span, tell) : [];
  if (!current()) return;
  state.windows = windows;
  timeline();
  say(`${name}: ${clip.frames} frames, ${clip.persons} person${clip.persons > 1 ? "s" : ""}; answered in ${took.toFixed(0)} ms`);
  document.body.dataset.answer = JSON.stringify(state.answer.probabilities);
}

function ranked(probabilities) {
  return probabilities.map((share, label) => ({ share, label, name: facts.class_names[label] })).sort((a, b) => b.share - a.share);
}

// Whether an answer is above the threshold of the score that the bundle rejects by.
function known({ probabilities, familiarity }) {
  const score = facts.score === "familiarity" ? familiarity : Math.max(...probabilities);
  return score >= state.threshold;
}

function bars() {
  if (!state.answer) return fillBars(at("bars"), []);
  const best = ranked(state.answer.probabilities);
  const none = known(state.answer) ? [] : [{ name: "none of these", share: null }];
  fillBars(at("bars"), [...none, ...best].slice(0, SHOWN));
}

function timeline() {
  const canvas = at("timeline");
  canvas.hidden = !state.windows.length;
  if (canvas.hidden) return;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const [width, height, style] = [canvas.clientWidth, canvas.clientHeight, getComputedStyle(document.body)];
  const [main, none, ink] = ["--main", "--none", "--ink"].map((name) => style.getPropertyValue(name));
  pen.font = "12px system-ui, sans-serif";
  let before = null;
  state.windows.forEach((answer, place) => {
    const { begin, end } = answer;
    const best = ranked(answer.probabilities)[0];
    const next = state.windows[place + 1]?.begin ?? end;
    const [from, to] = [begin / state.clip.frames * width, next / state.clip.frames * width];
    const sure = known(answer);
    pen.fillStyle = sure ? main : none;
    pen.globalAlpha = 0.25 + 0.75 * best.share;
    pen.fillRect(from, height - 14 - 26 * best.share, Math.max(1, to - from - 1), 26 * best.share);
    pen.globalAlpha = 1;
    const name = sure ? best.name : "none";
    if (name !== before) {
      pen.fillStyle = ink;
      pen.save();
      pen.beginPath();
      pen.rect(from, 0, Math.max(40, to - from + 60), 16);
      pen.clip();
      pen.fillText(name, from, 12);
      pen.restore();
    }
    before = name;
  });
  pen.fillStyle = ink;
  pen.fillRect(state.frame / Math.max(1, state.clip.frames - 1) * (width - 2), height - 12, 2, 12);
}

function show(frame) {
  if (!state.clip) return;
  state.frame = Math.max(0, Math.min(state.clip.frames - 1, frame));
  at("time").value = state.frame;
  at("frame").textContent = `${(state.frame / rate()).toFixed(2)} s`;
  stage.show(state.clip, state.skeleton, state.frame);
  if (state.windows.length) timeline();
  const video = at("video");
  if (!video.hidden && !state.live && !state.playing) video.currentTime = state.frame / rate();
}

function play(on = !state.playing) {
  state.playing = on && state.clip !== null;
  at("play").textContent = state.playing ? "Pause" : "Play";
  const video = at("video");
  if (!video.hidden && !state.live) { if (state.playing) video.play(); else video.pause(); }
  if (!state.playing) return;
  let before = performance.now(), time = state.frame;
  const tick = (now) => {
    if (!state.playing) return;
    time += (now - before) / 1000 * rate();
    before = now;
    if (time >= state.clip.frames) time = 0;
    show(Math.floor(time));
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}

async function startCamera() {
  const current = begun();
  say("loading the pose estimator …");
  let stream;
  try {
    await readyForFilm();
    stream = await navigator.mediaDevices.getUserMedia({ video: true });
    if (!current()) return turnOff(stream);
    const video = at("video");
    video.srcObject = stream;
    video.hidden = false;
    await video.play();
    const live = state.live = { stream, frames: [], times: [], busy: false };
    at("camera").setAttribute("aria-pressed", "true");
    requestAnimationFrame(() => watch(live));
  } catch (error) {
    turnOff(stream);
    stopCamera();
    say(`no camera: ${error.message}`, true);
  }
}

async function watch(live) {
  if (state.live !== live) return;
  const now = performance.now() / 1000;
  const joints = film.look();
  live.frames.push(joints);
  live.times.push(now);
  const span = Number(at("span").value);
  while (live.times.length > 2 && now - live.times[0] > span) { live.frames.shift(); live.times.shift(); }
  const clip = asClip(live.frames);
  state.clip = clip;
  state.skeleton = facts.film;
  state.windows = [];
  stage.show(clip, facts.film, clip.frames - 1);
  if (!live.busy && live.frames.filter(Boolean).length > 4) {
    live.busy = true;
    try {
      const answer = await models.film.classify(clip);
      if (state.live !== live) return;
      state.answer = answer;
      document.body.dataset.answer = JSON.stringify(state.answer.probabilities);
      bars();
      say(`camera: ${(live.times.length / Math.max(0.1, now - live.times[0])).toFixed(0)} frames a second`);
    } catch (error) {
      say(`camera: ${error.message}`);
    }
    live.busy = false;
  } else if (!joints) say("camera: nobody is seen");
  requestAnimationFrame(() => watch(live));
}

const turnOff = (stream) => stream?.getTracks().forEach((track) => track.stop());

function stopCamera() {
  turnOff(state.live?.stream);
  state.live = null;
  at("video").srcObject = null;
  at("camera").setAttribute("aria-pressed", "false");
}

at("choose").addEventListener("click", () => at("file").click());
at("file").addEventListener("change", () => { if (at("file").files[0]) open(at("file").files[0]); at("file").value = ""; });
at("camera").addEventListener("click", () => (state.live ? (stopCamera(), say("camera off")) : startCamera()));
at("play").addEventListener("click", () => play());
at("time").addEventListener("input", () => { play(false); show(Number(at("time").value)); });
at("threshold").addEventListener("input", () => { setThreshold(Number(at("threshold").value)); bars(); timeline(); });
for (const id of ["fps", "span"]) at(id).addEventListener("change", () => { if (state.clip && !state.live) judge(state.clip, state.model, state.skeleton, state.name).catch((error) => say(error.message, true)); });
at("timeline").addEventListener("click", (event) => { play(false); show(Math.round(event.offsetX / at("timeline").clientWidth * (state.clip.frames - 1))); });
document.addEventListener("keydown", (event) => {
  if (event.target instanceof HTMLInputElement || event.target instanceof HTMLButtonElement) return;
  const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
  if (event.key === " ") { event.preventDefault(); play(); }
  else if (event.key in steps && state.clip) { play(false); show(state.frame + steps[event.key]); }
});
const over = (event, on) => { event.preventDefault(); at("drop").classList.toggle("over", on); };
document.addEventListener("dragover", (event) => over(event, true));
document.addEventListener("dragleave", (event) => over(event, false));
document.addEventListener("drop", (event) => { over(event, false); if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]); });
window.addEventListener("resize", timeline);
begin().catch((error) => say(`the model cannot be loaded: ${error.message}`, true));
