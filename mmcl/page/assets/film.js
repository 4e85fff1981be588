// Videos and cameras: MediaPipe finds the joints of one person in each frame, in metres around the hips.
const [JOINTS, COLUMNS] = [33, 4];

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
    const { worldLandmarks } = this.landmarker.detectForVideo(this.video, this.last);
    if (!worldLandmarks.length) return null;
    return worldLandmarks[0].flatMap(({ x, y, z, visibility }) => [-x, -y, z, visibility ?? 1]);
  }

  // A whole video file, frame by frame at a rate: a clip. It stops where nobody wants it any more.
  async read(fps, progress, wanted) {
    const frames = [];
    const count = Math.max(1, Math.floor(this.video.duration * fps));
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
    video.addEventListener("seeked", resolve, { once: true });
    video.addEventListener("error", () => reject(new Error("the video cannot be decoded")), { once: true });
    video.currentTime = seconds;
  });
}
