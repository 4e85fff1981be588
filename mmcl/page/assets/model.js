// A bundle's graph: raw joints in, probabilities out.
import * as ort from "./vendor/ort.wasm.min.mjs";
import { asInput } from "./clip.js";

ort.env.wasm.wasmPaths = new URL("./vendor/", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more need headers that not every server of static files can send

class Nobody extends Error {}

// Windows of `span` frames, `hop` apart; the last one ends with the recording. A short recording is one.
export function windows(frames, span, hop) {
  const begins = [0];
  while (begins.at(-1) + hop + span <= frames) begins.push(begins.at(-1) + hop);
  if (begins.at(-1) + span < frames) begins.push(frames - span);
  return begins.map((begin) => [begin, Math.min(frames, begin + span)]);
}

export class Model {
  // `score` is what the bundle rejects by: a graph that does not give it is refused.
  static async load(graph, facts, score) {
    const model = new Model();
    model.facts = facts;
    model.session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
    if (score === "familiarity" && !model.session.outputNames.includes(score)) {
      throw new Error(`${graph} does not give the familiarity by which the bundle rejects: export the bundle again`);
    }
    return model;
  }

  // {probabilities of all classes, familiarity or null} for frames of a clip.
  async classify(clip, begin = 0, end = clip.frames) {
    const { data, dims } = asInput(clip, begin, end, this.facts.columns);
    if (!data.some((value) => value !== 0)) throw new Nobody("nobody is there in these frames");
    const asked = ["probabilities", "familiarity"].filter((name) => this.session.outputNames.includes(name));
    const found = await this.session.run({ joints: new ort.Tensor("float32", data, dims) }, asked);
    return { probabilities: Array.from(found.probabilities.data), familiarity: found.familiarity?.data[0] ?? null };
  }

  // Windows of a clip in which somebody is, with half of each in common: {begin, end, probabilities, familiarity}.
  async overTime(clip, span, progress = () => {}) {
    const length = Math.max(2, Math.min(clip.frames, Math.round(span)));
    const rows = [];
    for (const [begin, end] of windows(clip.frames, length, Math.max(1, Math.round(length / 2)))) {
      try {
        rows.push({ begin, end, ...await this.classify(clip, begin, end) });
      } catch (error) {
        if (!(error instanceof Nobody)) throw error;
      }
      progress(end / clip.frames);
    }
    return rows;
  }
}
