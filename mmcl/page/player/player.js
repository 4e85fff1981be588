// The page that `mmcl show` and reports write. Its clips are in the page itself; see mmcl/page/player.py.
import { fillBars } from "../parts/bars.js";
import { Stage, TINTS } from "../parts/skeleton.js";
import { colourOf, Lines } from "./lines.js";

const at = (id) => document.getElementById(id);
const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4];
const MISSING = -32768;
const SHOWN = 5;
const page = JSON.parse(at("data").textContent);
const state = { number: 0, clip: null, frame: 0, playing: null };
const stage = new Stage(at("skeleton"));
const lines = new Lines(at("lines"), (frame) => { play(false); show(frame); });
const facts = () => page.clips[state.number];

function decode({ joints, persons, frames, unit }) {
  const view = new DataView(Uint8Array.from(atob(joints), (letter) => letter.charCodeAt(0)).buffer);
  const data = new Float32Array(view.byteLength / 2);
  for (let place = 0; place < data.length; place++) {
    const value = view.getInt16(2 * place, true);
    data[place] = value === MISSING ? NaN : value * unit;
  }
  return { persons, frames, joints: page.skeleton.names.length, columns: 3, data };
}

function element(kind, parts, ...children) {
  const made = Object.assign(document.createElement(kind), parts);
  made.append(...children);
  return made;
}

function chip(words, colour) {
  const made = element("span", { className: "chip", textContent: words, title: words });
  made.style.setProperty("--chip", colour);
  return made;
}

function open(number) {
  play(false);
  state.number = (number + page.clips.length) % page.clips.length;
  const { title, about, persons, frames, fps, flip, pictures, scores, answers } = facts();
  state.clip = decode(facts());
  stage.flip = flip;
  at("title").textContent = title;
  at("about").textContent = about;
  at("clip").value = state.number;
  at("time").max = frames - 1;
  at("film").hidden = at("strip").hidden = !pictures;
  at("strip").replaceChildren(...(pictures?.jpegs ?? []).map((jpeg, place) => {
    const button = element("button", { type: "button", title: `frame ${pictures.frames[place]}` }, element("img", { src: jpeg, alt: "" }));
    button.addEventListener("click", () => { play(false); show(pictures.frames[place]); });
    return button;
  }));
  at("people").replaceChildren(...Array.from({ length: persons }, (_, person) => {
    const who = persons > 1 ? `person ${person + 1} ` : "";
    return ["left", "right", "torso"].map((side, place) => chip(`${place ? "" : who}${side}`, TINTS[person % TINTS.length][place]));
  }).flat());
  at("scores").hidden = !scores;
  lines.show(scores, frames, fps);
  at("legend").replaceChildren(...(scores?.names ?? []).map((name, place) => chip(name, colourOf(place))));
  fillBars(at("bars"), answers?.map(([name, share]) => ({ name, share })) ?? []);
  at("window").textContent = answers ? "of the whole clip" : "";
  mirror(flip);
  show(0);
}

function show(frame) {
  const { frames, fps, pictures, scores } = facts();
  state.frame = Math.max(0, Math.min(frames - 1, frame));
  at("time").value = state.frame;
  at("frame").textContent = `${state.frame} / ${frames - 1} · ${(state.frame / fps).toFixed(2)} s`;
  stage.show(state.clip, page.skeleton, state.frame);
  if (pictures) {
    const count = pictures.jpegs.length;
    const place = Math.min(count - 1, Math.floor(state.frame * count / frames));
    if (at("picture").src !== pictures.jpegs[place]) at("picture").src = pictures.jpegs[place];
    at("caption").textContent = `video, frame ${pictures.frames[place]} (${place + 1} of ${count})`;
    [...at("strip").children].forEach((button, each) => button.setAttribute("aria-current", each === place));
  }
  if (scores) showWindow(scores, fps);
}

function showWindow(scores, fps) {
  lines.draw(state.frame);
  const place = lines.windowAt(state.frame);
  const [begin, end] = scores.windows[place].map((frame) => (frame / fps).toFixed(2));
  at("window").textContent = `window from ${begin} s to ${end} s`;
  const rows = scores.names.map((name, label) => ({ name, share: scores.shares[place][label], colour: colourOf(label) })).sort((a, b) => b.share - a.share);
  fillBars(at("bars"), [...(scores.rejected[place] ? [{ name: "none of these", share: null }] : []), ...rows].slice(0, SHOWN));
}

function play(on = state.playing === null) {
  const mine = state.playing = on ? {} : null;
  at("play").textContent = mine ? "Pause" : "Play";
  const { frames, fps } = facts();
  let before = performance.now(), time = state.frame;
  const tick = (now) => {
    if (mine === null || state.playing !== mine) return;
    time = (time + Math.max(0, now - before) / 1000 * fps * Number(at("speed").value)) % frames;
    before = now;
    show(Math.floor(time));
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}

function mirror(flip = -stage.flip) {
  stage.flip = flip;
  at("mirror").setAttribute("aria-pressed", flip === 1);
  stage.draw();
}

const KEYS = {
  " ": () => play(), m: () => mirror(), 0: () => stage.reset(), "+": () => stage.zoomBy(1.2), "-": () => stage.zoomBy(1 / 1.2),
  ArrowLeft: () => step(-1), ArrowRight: () => step(1), Home: () => step(-Infinity), End: () => step(Infinity),
};
const TURNS = { ArrowLeft: [-20, 0], ArrowRight: [20, 0], ArrowUp: [0, -20], ArrowDown: [0, 20] };

function step(frames) {
  play(false);
  show(state.frame + frames);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|BUTTON)$/.test(event.target.tagName)) return;
  const turned = event.shiftKey && TURNS[event.key];
  const done = turned ? () => stage.turn(...turned) : KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!done) return;
  event.preventDefault();
  done();
});
at("play").addEventListener("click", () => play());
at("time").addEventListener("input", () => { play(false); show(Number(at("time").value)); });
at("mirror").addEventListener("click", () => mirror());
at("reset").addEventListener("click", () => stage.reset());
at("before").addEventListener("click", () => open(state.number - 1));
at("next").addEventListener("click", () => open(state.number + 1));
at("clip").addEventListener("change", () => open(Number(at("clip").value)));
at("speed").append(...[...new Set([...SPEEDS, page.speed])].sort((a, b) => a - b).map((speed) => element("option", { value: speed, textContent: `× ${speed}` })));
at("speed").value = page.speed;
at("clip").append(...page.clips.map(({ title }, number) => element("option", { value: number, textContent: `${number + 1}. ${title}` })));
at("clips").hidden = page.clips.length < 2;
open(0);
document.body.dataset.ready = "yes";
