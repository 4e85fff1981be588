// Draws people from a camera that is dragged around them. Both pages have it: `mmcl serve`, and what `mmcl show` writes.
//
// A clip is {persons, frames, joints, columns, data: (M, T, V, C)}, y up and z away; a missing joint is NaN or all zeros.
// A skeleton is {bones: [[child, parent], …], names: [V joint names]}.
export const TINTS = [ // left, right, torso: of the first person, of the second, …
  ["#2d7dff", "#f03c3c", "#8f979e"], ["#00afa5", "#f09000", "#9a83ad"],
  ["#5b57d6", "#d6409f", "#7f8c4d"], ["#4a9c2d", "#a8642a", "#5f93a8"],
];
const NEAR = 16; // pixels from a joint at which it says its name
const START = { yaw: -0.3, pitch: 0.15, zoom: 1, pan: [0, 0] };

export class Stage {
  constructor(canvas) {
    this.canvas = canvas;
    this.flip = 1; // 1: x to the right, as pictures of the sensor have it; -1: left and right as they are in space
    this.fingers = new Map();
    this.reset();
    const place = (event) => [event.offsetX, event.offsetY];
    canvas.addEventListener("pointerdown", (event) => { this.fingers.set(event.pointerId, place(event)); canvas.setPointerCapture(event.pointerId); this.point(place(event)); });
    canvas.addEventListener("pointermove", (event) => this.moved(event.pointerId, place(event)));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.fingers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => this.point(null));
    canvas.addEventListener("wheel", (event) => { event.preventDefault(); this.zoomBy(Math.exp(-0.0015 * event.deltaY), place(event)); }, { passive: false });
    canvas.addEventListener("dblclick", () => this.reset());
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  reset() { Object.assign(this, structuredClone(START)); this.draw(); }

  turn(right, down) {
    this.yaw -= right / 120;
    this.pitch = Math.max(-Math.PI / 2, Math.min(Math.PI / 2, this.pitch + down / 150));
    this.draw();
  }

  // What is at `place` stays there.
  zoomBy(factor, place = [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2]) {
    const zoom = Math.max(0.3, Math.min(12, this.zoom * factor));
    const middle = [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2];
    this.pan = this.pan.map((pan, axis) => (place[axis] - middle[axis]) * (1 - zoom / this.zoom) + pan * zoom / this.zoom);
    this.zoom = zoom;
    this.draw();
  }

  moved(finger, to) {
    const from = this.fingers.get(finger);
    if (!from) return this.point(to);
    const other = [...this.fingers].find(([id]) => id !== finger)?.[1];
    this.fingers.set(finger, to);
    this.pointer = null;
    if (!other) return this.turn(to[0] - from[0], to[1] - from[1]);
    const apart = (a) => Math.max(20, Math.hypot(a[0] - other[0], a[1] - other[1]));
    this.pan = this.pan.map((pan, axis) => pan + (to[axis] - from[axis]) / 2);
    this.zoomBy(apart(to) / apart(from), [0, 1].map((axis) => (to[axis] + other[axis]) / 2));
  }

  point(at) { this.pointer = at; this.draw(); }

  show(clip, skeleton, frame = 0) {
    if (clip !== this.clip) Object.assign(this, { box: extent(clip), places: fill(clip) });
    Object.assign(this, { clip, skeleton, frame });
    this.draw();
  }

  // Where a point (x, y, z) is on the canvas, and how far away: [right, down, depth], depth in units of the clip's size.
  project([x, y, z]) {
    const { middle, size } = this.box;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    const scale = 0.85 * Math.min(width, height) / size * this.zoom;
    const [dx, dy, dz] = [this.flip * (x - middle[0]), y - middle[1], z - middle[2]];
    const right = Math.cos(this.yaw) * dx + Math.sin(this.yaw) * dz;
    const away = Math.cos(this.yaw) * dz - Math.sin(this.yaw) * dx;
    const up = Math.cos(this.pitch) * dy + Math.sin(this.pitch) * away;
    const depth = Math.cos(this.pitch) * away - Math.sin(this.pitch) * dy;
    return [width / 2 + this.pan[0] + scale * right, height / 2 + this.pan[1] - scale * up, depth / size];
  }

  draw() {
    const { canvas, clip } = this;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    if (!clip) return;
    pen.lineCap = "round";
    if (this.box.deep) this.drawFloor(pen);
    const joints = this.jointsNow();
    const bones = this.bonesOf(joints).sort((a, b) => b.depth - a.depth);
    for (const { from, to, colour, depth, there } of bones) {
      pen.strokeStyle = colour;
      pen.lineWidth = Math.max(1, 3.2 - 2 * depth);
      pen.setLineDash(there ? [] : [3, 6]);
      pen.globalAlpha = there ? 1 : 0.6;
      line(pen, from, to);
    }
    pen.setLineDash([]);
    pen.globalAlpha = 1;
    for (const { at, colour, there } of joints.sort((a, b) => b.at[2] - a.at[2])) {
      pen.beginPath();
      pen.arc(at[0], at[1], Math.max(2, 3.8 - 2 * at[2]), 0, 2 * Math.PI);
      Object.assign(pen, { fillStyle: colour, strokeStyle: colour, lineWidth: 1.5 });
      pen.globalCompositeOperation = there ? "source-over" : "destination-out"; // hollow: bones end at its rim
      pen.fill();
      pen.globalCompositeOperation = "source-over";
      if (!there) pen.stroke();
    }
    if (this.pointer) this.drawName(pen, joints);
  }

  // The joints of the people who are there in this frame: {person, joint, at, space, colour, there}.
  jointsNow() {
    const { clip, frame, skeleton, places: { data, there } } = this;
    const found = [];
    for (let person = 0; person < clip.persons; person++) {
      const first = (person * clip.frames + frame) * clip.joints;
      if (!there.subarray(first, first + clip.joints).includes(1)) continue;
      for (let joint = 0; joint < clip.joints; joint++) {
        const space = data.subarray(3 * (first + joint), 3 * (first + joint) + 3);
        if (Number.isNaN(space[0])) continue; // of a joint that is in no frame, nothing is known
        const colour = tint(person, skeleton.names?.[joint]);
        found.push({ person, joint, at: this.project(space), space, colour, there: there[first + joint] === 1 });
      }
    }
    return found;
  }

  bonesOf(joints) {
    const known = new Map(joints.map((each) => [each.person * this.clip.joints + each.joint, each]));
    const bones = [];
    for (let person = 0; person < this.clip.persons; person++) {
      for (const pair of this.skeleton.bones) {
        const [a, b] = pair.map((joint) => known.get(person * this.clip.joints + joint));
        if (!a || !b) continue;
        const [left, right, torso] = TINTS[person % TINTS.length];
        const across = a.colour !== b.colour && [a, b].every((end) => end.colour === left || end.colour === right);
        bones.push({ from: a.at, to: b.at, depth: (a.at[2] + b.at[2]) / 2, there: a.there && b.there, colour: across ? torso : a.colour });
      }
    }
    return bones;
  }

  // A net on the floor, the height of the lowest joints.
  drawFloor(pen) {
    const { floor, middle, size } = this.box;
    const step = spacing(size / 6);
    const reach = Math.ceil(0.6 * size / step) * step;
    const [x, z] = [middle[0], middle[2]].map((value) => Math.round(value / step) * step);
    pen.strokeStyle = getComputedStyle(this.canvas).getPropertyValue("--line");
    pen.lineWidth = 1;
    for (let way = -reach; way <= reach + step / 2; way += step) {
      line(pen, this.project([x + way, floor, z - reach]), this.project([x + way, floor, z + reach]));
      line(pen, this.project([x - reach, floor, z + way]), this.project([x + reach, floor, z + way]));
    }
  }

  // The name of the joint that is pointed at, and where it is.
  drawName(pen, joints) {
    const away = ({ at }) => Math.hypot(at[0] - this.pointer[0], at[1] - this.pointer[1]);
    const near = joints.filter((each) => away(each) < NEAR).sort((a, b) => away(a) - away(b))[0];
    if (!near) return;
    const who = this.clip.persons > 1 ? `person ${near.person + 1}, ` : "";
    const where = near.there ? Array.from(near.space, (value) => value.toFixed(2)).join(", ") : "missing";
    const words = `${who}${(this.skeleton.names?.[near.joint] ?? `joint ${near.joint}`).slice(0, 60)}: ${where}`;
    const style = getComputedStyle(this.canvas);
    pen.font = "13px system-ui, sans-serif";
    const width = pen.measureText(words).width + 12;
    const left = Math.max(2, Math.min(near.at[0] + 10, this.canvas.clientWidth - width - 2));
    const top = Math.max(2, near.at[1] - 30);
    pen.fillStyle = style.getPropertyValue("--ink");
    pen.fillRect(left, top, width, 22);
    pen.fillStyle = style.getPropertyValue("--back");
    pen.fillText(words, left + 6, top + 15.5);
  }
}

function tint(person, name = "") {
  const [left, right, torso] = TINTS[person % TINTS.length];
  return name.startsWith("left_") ? left : name.startsWith("right_") ? right : torso;
}

export function line(pen, [x, y], [right, down]) {
  pen.beginPath();
  pen.moveTo(x, y);
  pen.lineTo(right, down);
  pen.stroke();
}

// A round number of about that size: 1, 2 or 5 times a power of ten.
export function spacing(size) {
  const power = 10 ** Math.floor(Math.log10(size));
  return power * ([1, 2, 5].find((factor) => factor * power >= size) ?? 10);
}

// Where each joint is, or would be: of one that is missing for a while, on the way from where it was to where it comes
// again. {data: (M, T, V, 3), NaN for a joint that a person never shows; there: (M, T, V) 1 where it was seen}.
function fill(clip) {
  const { persons, frames, joints, columns } = clip;
  const data = new Float32Array(persons * frames * joints * 3).fill(NaN);
  const there = new Uint8Array(persons * frames * joints);
  for (let person = 0; person < persons; person++) {
    for (let joint = 0; joint < joints; joint++) {
      let last = -1;
      const at = (frame) => (person * frames + frame) * joints + joint;
      for (let frame = 0; frame < frames; frame++) {
        const from = at(frame) * columns;
        const [x, y, z] = [clip.data[from], clip.data[from + 1], columns > 2 ? clip.data[from + 2] : 0];
        if (![x, y, z].every(Number.isFinite) || (x === 0 && y === 0 && z === 0)) continue;
        data.set([x, y, z], 3 * at(frame));
        there[at(frame)] = 1;
        for (let gap = last + 1; gap < frame; gap++) bridge(data, at(last), at(gap), at(frame), last < 0 ? 1 : (gap - last) / (frame - last));
        last = frame;
      }
      for (let gap = last + 1; last >= 0 && gap < frames; gap++) bridge(data, at(last), at(gap), at(last), 1);
    }
  }
  return { data, there };
}

function bridge(data, before, place, after, share) {
  for (let axis = 0; axis < 3; axis++) {
    const end = data[3 * after + axis];
    data[3 * place + axis] = share === 1 ? end : (1 - share) * data[3 * before + axis] + share * end;
  }
}

// Middle and size of the box around all joints of a clip, its floor, and whether it has depth; one joint in a hundred
// may lie outside.
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
  return {
    middle: bounds.map(([low, high]) => (low + high) / 2), size: Math.max(...sizes, 1e-3),
    floor: bounds[1][0], deep: sizes[2] > 0,
  };
}
