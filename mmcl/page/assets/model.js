// A bundle's graph: raw joints in, probabilities out.
import * as ort from "./vendor/ort.wasm.min.mjs";
import { asInput } from "./clip.js";

ort.env.wasm.wasmPaths = new URL("./vendor/", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more need headers that not every server of static files can send

export class Model {
  static async load(graph, facts) {
    const model = new Model();
    model.facts = facts;
    model.session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
    return model;
  }

  // {probabilities of all classes, familiarity or null} for frames of a clip.
  async classify(clip, begin = 0, end = clip.frames) {
    const { data, dims } = asInput(clip, begin, end, this.facts.columns);
    if (!data.some((value) => value !== 0)) throw new Error("nobody is there in these frames");
    const asked = ["probabilities", "familiarity"].filter((name) => this.session.outputNames.includes(name));
    const found = await this.session.run({ joints: new ort.Tensor("float32", data, dims) }, asked);
    return { probabilities: Array.from(found.probabilities.data), familiarity: found.familiarity?.data[0] ?? null };
  }

  // Windows of a clip, one behind the other with half of each in common: {begin, end, probabilities, familiarity}.
  async overTime(clip, span, progress = () => {}) {
    const length = Math.max(2, Math.min(clip.frames, Math.round(span)));
    const hop = Math.max(1, Math.round(length / 2));
    const rows = [];
    for (let begin = 0; begin === 0 || begin + length <= clip.frames; begin += hop) {
      try {
        rows.push({ begin, end: begin + length, ...await this.classify(clip, begin, begin + length) });
      } catch {
        // nobody in this window
      }
      progress((begin + length) / clip.frames);
    }
    return rows;
  }
}
