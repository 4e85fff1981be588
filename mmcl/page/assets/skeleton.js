// Draws one frame of a clip, turned about the vertical axis, so that the whole clip fits.
const COLOURS = ["#2f6db3", "#d9772b", "#3d9a5f", "#9a4fb0"];

export class Stage {
  constructor(canvas) {
    this.canvas = canvas;
    this.turn = 0.3;
    let from = null;
    canvas.addEventListener("pointerdown", (event) => { from = event.clientX; canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointermove", (event) => {
      if (from === null) return;
      this.turn += (event.clientX - from) / 120;
      from = event.clientX;
      this.draw();
    });
    canvas.addEventListener("pointerup", () => { from = null; });
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  show(clip, bones, frame = 0) {
    if (clip !== this.clip) this.box = extent(clip);
    Object.assign(this, { clip, bones, frame });
    this.draw();
  }

  draw() {
    const { canvas, clip } = this;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== width * ratio || canvas.height !== height * ratio) {
      canvas.width = width * ratio;
      canvas.height = height * ratio;
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    if (!clip) return;
    const scale = 0.9 * Math.min(width, height) / this.box.size;
    const [cos, sin] = [Math.cos(this.turn), Math.sin(this.turn)];
    const up = clip.up ?? 1;
    for (let m = 0; m < clip.persons; m++) {
      const at = (v) => {
        const from = ((m * clip.frames + this.frame) * clip.joints + v) * clip.columns;
        const [x, y, z] = [clip.data[from], clip.data[from + 1], clip.columns > 2 ? clip.data[from + 2] : this.box.middle[2]];
        if (!Number.isFinite(x) || !Number.isFinite(y) || (x === 0 && y === 0 && z === 0)) return null;
        const [dx, dy, dz] = [x - this.box.middle[0], y - this.box.middle[1], z - this.box.middle[2]];
        return [width / 2 + scale * (cos * dx + sin * dz), height / 2 - scale * up * dy];
      };
      pen.strokeStyle = pen.fillStyle = COLOURS[m % COLOURS.length];
      pen.lineWidth = 3;
      pen.lineCap = "round";
      for (const [a, b] of this.bones) {
        const [one, two] = [at(a), at(b)];
        if (!one || !two) continue;
        pen.beginPath();
        pen.moveTo(...one);
        pen.lineTo(...two);
        pen.stroke();
      }
      for (let v = 0; v < clip.joints; v++) {
        const place = at(v);
        if (!place) continue;
        pen.beginPath();
        pen.arc(...place, 3.5, 0, 2 * Math.PI);
        pen.fill();
      }
    }
  }
}

// Middle and size of the box around all joints of a clip; one joint in a hundred may lie outside.
function extent(clip) {
  const axes = [[], [], []];
  for (let place = 0; place < clip.data.length; place += clip.columns) {
    const joint = [0, 1, 2].map((c) => (c < Math.min(3, clip.columns) ? clip.data[place + c] : 0));
    if (joint.every(Number.isFinite) && joint.some((value) => value !== 0)) joint.forEach((value, c) => axes[c].push(value));
  }
  const bounds = axes.map((values) => {
    values.sort((a, b) => a - b);
    const cut = Math.floor(values.length / 200);
    return [values[cut] ?? 0, values[values.length - 1 - cut] ?? 1];
  });
  const sizes = bounds.map(([low, high]) => high - low);
  return { middle: bounds.map(([low, high]) => (low + high) / 2), size: Math.max(...sizes, 1e-3) };
}
