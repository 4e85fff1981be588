// What a model says of the windows of a clip, over time: a strip of labels above, a line a class below.
//
// Scores are {names: [K], windows: [[begin, end], …], shares: [[K], …], rejected: [bool, …], threshold: number or null}.
import { line, spacing } from "../parts/skeleton.js";

const COLOURS = ["#3b82c4", "#e07b39", "#3d9a5f", "#b05bb8", "#c9a227", "#d9534f", "#2aa5a0", "#8a7f76"];
const STRIP = 24, LEFT = 44, FOOT = 18; // pixels: of the labels, of the axis beside, of the axis below
export const colourOf = (place) => COLOURS[place] ?? "#8a8a8a";

export class Lines {
  constructor(canvas, seek) {
    this.canvas = canvas;
    const go = (event) => this.scores && seek(Math.floor(this.frameAt(event.offsetX)));
    canvas.addEventListener("pointerdown", go);
    canvas.addEventListener("pointermove", (event) => { if (event.buttons) go(event); });
    new ResizeObserver(() => this.draw(this.frame ?? 0)).observe(canvas);
  }

  show(scores, frames, fps) { Object.assign(this, { scores, frames, fps }); }

  frameAt(x) { return Math.max(0, Math.min(this.frames - 1, (x - LEFT) / (this.canvas.clientWidth - LEFT) * this.frames)); }

  // The window whose middle is nearest to a frame.
  windowAt(frame) {
    const away = ([begin, end]) => Math.abs((begin + end) / 2 - frame - 0.5);
    return this.scores.windows.reduce((best, window, place, all) => (away(window) < away(all[best]) ? place : best), 0);
  }

  best(place) {
    const shares = this.scores.shares[place];
    return shares.indexOf(Math.max(...shares));
  }

  draw(frame) {
    this.frame = frame;
    const { canvas, scores } = this;
    if (!scores || !canvas.clientWidth) return;
    const ratio = window.devicePixelRatio || 1;
    Object.assign(canvas, { width: canvas.clientWidth * ratio, height: canvas.clientHeight * ratio });
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = "12px system-ui, sans-serif";
    const style = getComputedStyle(canvas);
    const [ink, quiet] = ["--ink", "--line"].map((name) => style.getPropertyValue(name));
    const [width, bottom] = [canvas.clientWidth, canvas.clientHeight - FOOT];
    const right = (time) => LEFT + time / this.frames * (width - LEFT);
    const down = (share) => bottom - share * (bottom - STRIP - 8);
    this.drawAxes(pen, ink, quiet, right, down);
    this.drawLabels(pen, ink, right);
    for (let label = scores.names.length - 1; label >= 0; label--) {
      pen.strokeStyle = pen.fillStyle = colourOf(label);
      pen.lineWidth = label < COLOURS.length ? 2 : 1;
      pen.beginPath();
      const points = scores.windows.map(([begin, end], place) => [right((begin + end) / 2), down(scores.shares[place][label])]);
      points.forEach(([x, y], place) => (place ? pen.lineTo(x, y) : pen.moveTo(x, y)));
      pen.stroke();
      if (points.length < 40) for (const [x, y] of points) { pen.beginPath(); pen.arc(x, y, 2.5, 0, 2 * Math.PI); pen.fill(); }
    }
    pen.fillStyle = ink;
    pen.fillRect(right(frame + 0.5) - 1, 0, 2, bottom);
  }

  drawAxes(pen, ink, quiet, right, down) {
    pen.fillStyle = ink;
    pen.strokeStyle = quiet;
    pen.lineWidth = 1;
    pen.textAlign = "right";
    for (const share of [0, 0.5, 1]) {
      line(pen, [LEFT, down(share)], [right(this.frames), down(share)]);
      pen.fillText(`${100 * share} %`, LEFT - 4, down(share) + 4);
    }
    pen.textAlign = "center";
    const seconds = this.frames / this.fps;
    const step = spacing(seconds / 8);
    for (let time = step; time < seconds; time += step) pen.fillText(`${Number(time.toFixed(6))} s`, right(time * this.fps), this.canvas.clientHeight - 4);
    pen.textAlign = "left";
    if (this.scores.threshold === null) return;
    pen.setLineDash([4, 4]);
    pen.strokeStyle = ink;
    line(pen, [LEFT, down(this.scores.threshold)], [right(this.frames), down(this.scores.threshold)]);
    pen.setLineDash([]);
  }

  // Neighbours of one label make one piece; a window reaches half way to the next one's middle.
  drawLabels(pen, ink, right) {
    const { windows, names, rejected } = this.scores;
    const middles = windows.map(([begin, end]) => (begin + end) / 2);
    const called = windows.map((_, place) => (rejected[place] ? -1 : this.best(place)));
    let from = 0;
    for (let place = 0; place < windows.length; place++) {
      if (place + 1 < windows.length && called[place + 1] === called[place]) continue;
      const to = place + 1 < windows.length ? (middles[place] + middles[place + 1]) / 2 : this.frames;
      pen.globalAlpha = 0.3;
      pen.fillStyle = called[place] < 0 ? "#8a8a8a" : colourOf(called[place]);
      pen.fillRect(right(from), 0, right(to) - right(from) - 1, STRIP - 4);
      pen.globalAlpha = 1;
      pen.save();
      pen.beginPath();
      pen.rect(right(from), 0, right(to) - right(from) - 3, STRIP);
      pen.clip();
      pen.fillStyle = ink;
      pen.fillText(called[place] < 0 ? "none of these" : names[called[place]], right(from) + 4, 14);
      pen.restore();
      from = to;
    }
  }
}
