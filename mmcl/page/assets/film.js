// Videos and cameras: MediaPipe finds the joints of one person in each frame, in metres around the hips.
import { ELSEWHERE } from "./clip.js";

const [JOINTS, COLUMNS] = [33, 4];
const LONGEST = 3600; // seconds of a video

export class Film {
  static async load(video) {
    const film = new Film();
    film.video = video;
    const { FilesetResolver, PoseLandmarker } = await import("./vendor/vision_bundle.mjs");
    const files = await FilesetResolver.forVisionTasks(new URL("./vendor/wasm", import.meta.url).href);
    film.landmarker = await PoseLandmarker.createFromOptions(files, {
      baseOptions: { modelAssetPath: new URL("./pose.task", import.meta.url).href, delegate: "CPU" },
      runningMode: "VIDEO",
      numPoses: 1,
    });
    film.last = 0;
    return film;
  }

  // (33 * 4) joints of the picture that the video shows, y up and z away, and how sure they are; null where nobody is.
  look() {
    this.last = Math.max(this.last + 1, performance.now());
    const { landmarks, worldLandmarks } = this.landmarker.detectForVideo(this.video, this.last);
    if (!worldLandmarks.length) return null;
    const sure = landmarks[0].map(({ visibility }) => Math.min(1, Math.max(0, visibility ?? 0))); // as `mmcl pose` has it
    return worldLandmarks[0].flatMap(({ x, y, z }, joint) => [-x, -y, z, sure[joint]]);
  }

  // A whole video file, frame by frame at a rate: a clip. It stops where nobody wants it any more. It throws where the
  // video does not say how long it is, as a recording of a browser may not, or is too long.
  async read(fps, progress, wanted) {
    const frames = [], { duration } = this.video;
    if (!Number.isFinite(duration)) throw new Error(`the video does not say how long it is: ${ELSEWHERE}`);
    if (duration > LONGEST) throw new Error(`the video has ${Math.ceil(duration)} seconds, and at most ${LONGEST} are read: ${ELSEWHERE}`);
    const count = Math.max(1, Math.floor(duration * fps));
    for (let frame = 0; frame < count; frame++) {
      await seek(this.video, (frame + 0.5) / fps);
      if (!wanted()) break;
      frames.push(this.look());
      progress((frame + 1) / count);
    }
    return asClip(frames);
  }
}

export function asClip(frames) {
  const data = new Float32Array(frames.length * JOINTS * COLUMNS);
  frames.forEach((joints, t) => { if (joints) data.set(joints, t * JOINTS * COLUMNS); });
  return { persons: 1, frames: frames.length, joints: JOINTS, columns: COLUMNS, data };
}

function seek(video, seconds) {
  return new Promise((resolve, reject) => {
    const heard = new AbortController(); // of two listeners one is called, and both have to go: a video has many frames
    const on = (event, then) => video.addEventListener(event, () => { heard.abort(); then(); }, { signal: heard.signal });
    on("seeked", resolve);
    on("error", () => reject(new Error("the video cannot be decoded")));
    video.currentTime = seconds;
  });
}
