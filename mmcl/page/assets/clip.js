// Skeleton files -> clips {persons, frames, joints, columns, data: Float32Array (M, T, V, C)}. Missing joints are 0.
// Only plain files are read here: what needs a closer look (other orders, pixels) is refused, `mmcl predict` takes it.

const LIMIT = 64 * 2 ** 20; // bytes of a file
const MOST_PERSONS = 10;
export const ELSEWHERE = "`mmcl predict` reads such files";

// `names` are the model's joints in their order.
export async function readClip(file, names) {
  if (file.size > LIMIT) throw new Error(`${file.name} has ${(file.size / 2 ** 20).toFixed(0)} MiB: at most 64 are read`);
  const name = file.name.toLowerCase();
  let found;
  if (name.endsWith(".npy")) found = parseNpy(await file.arrayBuffer());
  else if (name.endsWith(".json")) found = parseJson(await file.text());
  else if (name.endsWith(".csv")) found = parseCsv(await file.text(), names);
  else throw new Error(`${file.name} ends in none of .npy, .json, .csv`);
  return withoutPlaceholders(arrange(found, names.length, file.name));
}

export function parseNpy(buffer) {
  const bytes = new Uint8Array(buffer);
  if (bytes.length < 12 || String.fromCharCode(...bytes.slice(1, 6)) !== "NUMPY") throw new Error("not a .npy file");
  const view = new DataView(buffer);
  const [size, start] = bytes[6] === 1 ? [view.getUint16(8, true), 10] : [view.getUint32(8, true), 12];
  if (start + size > bytes.length) throw new Error("the .npy file is cut short");
  const header = new TextDecoder("latin1").decode(bytes.slice(start, start + size));
  const kind = /'descr':\s*'([^']*)'/.exec(header)?.[1];
  const shape = (/'shape':\s*\(([^)]*)\)/.exec(header)?.[1] ?? "").split(",").map((s) => s.trim()).filter(Boolean).map(Number);
  if (/'fortran_order':\s*True/.test(header)) throw new Error("numbers are in Fortran order: save numpy.ascontiguousarray of it");
  const types = { "<f4": Float32Array, "<f8": Float64Array, "<i4": Int32Array, "<i2": Int16Array };
  const type = types[kind];
  if (!type) throw new Error(`numbers of kind ${kind}: save it as float32`);
  const count = shape.reduce((a, b) => a * b, 1);
  const from = start + size;
  if (bytes.length - from < count * type.BYTES_PER_ELEMENT) throw new Error("the .npy file is cut short");
  const values = new type(buffer.slice(from, from + count * type.BYTES_PER_ELEMENT));
  return { shape, values: Float32Array.from(values) };
}

export function parseJson(text) {
  let content = JSON.parse(text);
  if (!Array.isArray(content)) content = content?.joints ?? content?.skeleton ?? content?.keypoints ?? content?.data;
  if (!Array.isArray(content)) throw new Error("no array of joints in the JSON file");
  const shape = [];
  for (let level = content; Array.isArray(level); level = level[0]) shape.push(level.length);
  if (shape.length > 4) throw new Error("arrays are nested too deeply");
  const values = [];
  const take = (part, depth) => {
    if (depth === shape.length) {
      if (part !== null && typeof part !== "number") throw new Error(`the JSON file has ${JSON.stringify(part).slice(0, 40)} in place of a number: ${ELSEWHERE}`);
      values.push(part ?? NaN);
    } else if (Array.isArray(part) && part.length === shape[depth]) part.forEach((each) => take(each, depth + 1));
    else throw new Error(`rows of the JSON file differ in length: ${ELSEWHERE}`);
  };
  take(content, 0);
  return { shape, values: Float32Array.from(values) };
}

const MISSING = /^(nan|na|null)?$/i, NUMBER = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i;

function toNumber(word) {
  if (MISSING.test(word)) return NaN;
  if (!NUMBER.test(word)) throw new Error(`the CSV file has '${word.slice(0, 40)}' in place of a number: ${ELSEWHERE}`);
  return Number(word);
}

export function parseCsv(text, names) {
  const rows = text.split(/\r?\n/).filter((row) => row.trim());
  const cut = (row) => row.split(rows[0].includes(";") ? ";" : rows[0].includes("\t") ? "\t" : ",").map((s) => s.trim());
  const counted = rows.length > 1 && cut(rows[0]).every((word, column) => word === String(column)); // pandas' header
  const header = counted || cut(rows[0]).some((word) => Number.isNaN(Number(word)) && !MISSING.test(word));
  if (header && !counted) checkHeader(cut(rows[0]), names);
  const numbers = rows.slice(header ? 1 : 0).map((row) => cut(row).map(toNumber));
  if (!numbers.length || numbers.some((row) => row.length !== numbers[0].length)) throw new Error("rows of the CSV file differ in length");
  return { shape: [numbers.length, numbers[0].length], values: Float32Array.from(numbers.flat()) };
}

// Columns have to stand as the model's joints do, x, y, z (and a confidence) of each.
function checkHeader(cells, names) {
  const words = cells.map((cell) => cell.replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase().match(/[a-z]+|\d+/g) ?? []);
  const size = cells.length / names.length;
  const plain = (parts) => parts.join("");
  const fits = words.every((parts, column) => {
    const axis = "xyz"[column % size], joint = Math.floor(column / size);
    const at = parts.at(-1) === axis ? [0, -1] : parts[0] === axis ? [1] : null;
    const stem = axis === undefined ? null : at && parts.slice(...at);
    if (axis === undefined) return true; // a confidence, whatever it is called
    if (!stem || !stem.length) return false;
    const number = /^(joint|j|kp|keypoint)?(\d+)$/.exec(plain(stem));
    return number ? Number(number[2]) === joint : plain(stem) === plain(names[joint].toLowerCase().match(/[a-z]+|\d+/g) ?? []);
  });
  if (![3, 4].includes(size) || !fits) {
    throw new Error(`the header does not name x, y and z of ${names[0]}, ${names[1]} … in the model's order: ${ELSEWHERE}`);
  }
}

function arrange({ shape, values }, joints, name) {
  let [persons, frames, V, columns] = [1, 0, joints, 3];
  if (shape.length === 4) [persons, frames, V, columns] = shape;
  else if (shape.length === 3) [frames, V, columns] = shape;
  else if (shape.length === 2) [frames, columns] = [shape[0], shape[1] / joints];
  if (V !== joints || ![2, 3, 4].includes(columns) || !frames) {
    throw new Error(`${name} has the shape (${shape.join(", ")}): this model takes (frames, ${joints}, 3), or (persons, frames, ${joints}, 3)`);
  }
  if (columns === 2) throw new Error(`${name} has two coordinates a joint, and no size of the picture: ${ELSEWHERE}`);
  if (persons > MOST_PERSONS || persons > Math.max(2, frames)) {
    throw new Error(`${name} has the shape (${shape.join(", ")}), which would be ${persons} persons in ${frames} frames: ${ELSEWHERE}`);
  }
  if (columns === 4) {
    const fourth = values.filter((value, place) => place % 4 === 3 && Number.isFinite(value));
    if (!fourth.length || fourth.some((value) => value < 0 || value > 1.001)) {
      throw new Error(`${name} has four numbers a joint, of which the last is no confidence from 0 to 1`);
    }
  }
  return { persons, frames, joints: V, columns, data: values };
}

// Trackers write -1 or -9999 where they see no joint: one number in all three coordinates, more than once.
function withoutPlaceholders(clip) {
  const { columns, data } = clip, counts = new Map();
  const same = (from) => data[from] !== 0 && data[from] === data[from + 1] && data[from] === data[from + 2];
  for (let from = 0; from < data.length; from += columns) {
    if (same(from)) counts.set(data[from], (counts.get(data[from]) ?? 0) + 1);
  }
  for (let from = 0; from < data.length; from += columns) {
    if (same(from) && counts.get(data[from]) > 1) data.fill(0, from, from + 3);
  }
  return clip;
}

// The numbers that a graph takes: (1, M, frames, V, wanted) of some frames; NaN and infinite joints become 0, missing.
export function asInput(clip, begin, end, wanted) {
  const { persons, frames, joints, columns, data } = clip;
  const out = new Float32Array(persons * (end - begin) * joints * wanted);
  let place = 0;
  for (let m = 0; m < persons; m++) {
    for (let t = begin; t < end; t++) {
      for (let v = 0; v < joints; v++, place += wanted) {
        const from = ((m * frames + t) * joints + v) * columns;
        const sure = columns < 4 || data[from + 3] > 0; // without confidence, a joint is missing
        const xyz = data.subarray(from, from + 3);
        if (!sure || !xyz.every(Number.isFinite) || !xyz.some(Boolean)) continue;
        for (let c = 0; c < wanted; c++) out[place + c] = c < columns ? data[from + c] : 1; // who says no confidence is sure
      }
    }
  }
  return { data: out, dims: [1, persons, end - begin, joints, wanted] };
}
