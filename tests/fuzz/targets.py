"""What is fuzzed: for every kind of file that mmcl reads, small made-up seeds and the code that reads it."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from made_stores import write_store
from mutated_clips import csvs, jsons, mat, npy, npz
from safetensors.torch import save_file

from mmcl.data.apply_protocol import split
from mmcl.data.inspection.checks import check
from mmcl.data.protocols import load_protocol
from mmcl.data.readers import READERS
from mmcl.data.readers.folder_options import FolderOptions
from mmcl.data.store import ClipStore, open_store
from mmcl.deploy.files import LAYOUTS, read_joints
from mmcl.deploy.follow import Frames
from mmcl.encoders.building import build_encoder
from mmcl.encoders.official import read_official
from mmcl.encoders.state_file import load_state_file
from mmcl.models.bundle import describe, load_bundle, write_bundle
from mmcl.models.model import Model
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions

LAYOUT = load_layout("kinect_v1_20")
RNG = np.random.default_rng(0)
PERSON = RNG.normal(size=(6, 20, 3)).astype(np.float32)


@dataclass
class Target:
    """Something that reads files.

    Attributes:
        name: of the target.
        kind: how its files can be taken apart, see :mod:`fuzz.mutate`.
        seeds: valid files.
        run: writes a file into a folder and reads it.
        prepare: lays out in the folder what belongs beside the file.
        batch: files that one process gets.
    """

    name: str
    kind: str
    seeds: Callable[[], list[bytes]]
    run: Callable[[Path, bytes], Any]
    prepare: Callable[[Path], Any] = field(default=lambda folder: None)
    batch: int = 40


def make_targets(scratch: Path, exported: Path | None = None) -> list[Target]:
    """All targets; what several share is made in a scratch folder, a graph unless a bundle that has one is given."""
    bundles = _bundle(scratch, exported)
    return [*_clips(), *_many_clips(), *_yaml(scratch), *_store(scratch), *bundles, *_runs(scratch), *_rest()]


def _clips() -> list[Target]:
    """Files of one clip, as predict reads them."""

    def reads(suffix: str) -> Callable[[Path, bytes], Any]:
        def run(folder: Path, data: bytes) -> None:
            (folder / f"c{suffix}").write_bytes(data)
            read_joints(folder / f"c{suffix}", load_layout(LAYOUTS.get(suffix, "kinect_v1_20")))

        return run

    joints = PERSON.transpose(1, 2, 0)
    mats = [mat("d_skel", joints), mat("d_skel", joints, do_compression=True)]
    mats.append(mat("d_skel", joints[..., 0], format="4"))
    return [
        Target("clip.npy", "bytes", lambda: [npy(PERSON)], reads(".npy"), batch=150),
        Target("clip.npz", "zip", lambda: [npz(joints=npy(PERSON)), npz(0, a=npy(PERSON))], reads(".npz"), batch=150),
        Target("clip.json", "json", lambda: [jsons()["good"]], reads(".json"), batch=100),
        Target("clip.csv", "text", lambda: [csvs()["good"]], reads(".csv"), batch=100),
        Target("clip.mat", "bytes", lambda: mats, reads(".mat"), batch=150),
        Target("clip.skeleton", "text", lambda: [_skeleton()], reads(".skeleton"), batch=40),
    ]


def _skeleton() -> bytes:
    """One body that stands, taller than wide, in NTU's text form."""
    lines = ["6"]
    for frame in range(6):
        lines += ["1", "72057594037931101 0 1 1 1 1 0 0.1 0.2 2", "25"]
        for joint in range(25):
            x, y, z = 0.02 * (joint % 3) + 0.01 * frame, 0.06 * joint, 2.5 + 0.01 * (joint % 2)
            lines.append(f"{x:.3f} {y:.3f} {z:.3f} 200.5 100.5 500.5 300.5 0.1 0.2 0.3 0.4 2")
    return "\n".join(lines).encode()


def _many_clips() -> list[Target]:
    """Files that hold or list many clips, as prepare reads them."""

    def reads(name: str, file: str, **options: Any) -> Callable[[Path, bytes], Any]:
        def run(folder: Path, data: bytes) -> None:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(data)
            whole = name in ("pyskl", "ctrgcn-npz") or file.endswith((".zip", ".tar"))
            reader = READERS[name](folder / file if whole else folder, None, **options)
            for source in reader.scan()[:5]:
                reader.read(source)

        return run

    def pickles() -> list[bytes]:
        entries = [{"frame_dir": f"S001C00{n}P001R001A00{n}", "label": n, "total_frames": 5,
                    "keypoint": RNG.normal(size=(1, 6, 25, 3)).astype(np.float32)} for n in (1, 2)]  # fmt: skip
        content = {"split": {"xsub_train": ["S001C001P001R001A001"], "xsub_val": []}, "annotations": entries}
        return [pickle.dumps(content, protocol) for protocol in (0, 2, 4, 5)]

    def arrays() -> list[bytes]:
        x = npy(RNG.normal(size=(2, 5, 150)).astype(np.float32))
        return [npz(0, x_train=x, y_train=npy(np.eye(2))), npz(x_test=x, y_test=npy(np.eye(2)))]

    def tar() -> bytes:
        buffer, content = io.BytesIO(), jsons(1)["good"]
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            entry = tarfile.TarInfo("all_sqe/a01_s01_e01_v01.json")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()

    def packed() -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("all_sqe/a01_s01_e01_v01.json", jsons(1)["good"])
        return buffer.getvalue()

    def list_beside(folder: Path) -> None:
        np.save(folder / "a.npy", PERSON)
        np.save(folder / "b.npy", PERSON)

    listed = b"id,label,subject,split,camera,setup,trial,file,video,width,height\n" + (
        b"a,wave,1,train,1,1,1,a.npy,,640,480\nb,kick,2,test val,1,1,2,b.npy,,640,480\n"
    )
    return [
        Target("pickle", "bytes", pickles, reads("pyskl", "x.pkl"), batch=100),
        Target("arrays", "zip", arrays, reads("ctrgcn-npz", "x.npz"), batch=60),
        Target("ucla.zip", "zip", lambda: [packed()], reads("nw-ucla", "x.zip"), batch=60),
        Target("ucla.tar", "bytes", lambda: [tar()], reads("nw-ucla", "x.tar"), batch=60),
        Target("clips.csv", "text", lambda: [listed],
               reads("folder", "clips.csv", options=FolderOptions("kinect_v1_20")), list_beside),
    ]  # fmt: skip


def _yaml(scratch: Path) -> list[Target]:
    from mmcl.data.prompts import load_prompts
    from mmcl.engine.parsing import parse
    from mmcl.evaluation.transfer import load_map
    from mmcl.studies.reading import read_study

    store = write_store(scratch / "for_protocols", 30)

    def protocol(path: Path) -> None:
        split(store, load_protocol(str(path)))

    def reads(read: Callable[[Path], Any], name: str = "x.yaml") -> Callable[[Path, bytes], Any]:
        def run(folder: Path, data: bytes) -> None:
            (folder / name).write_bytes(data)
            read(folder / name)

        return run

    layout = Path(load_layout.__code__.co_filename).parent / "layouts" / "kinect_v1_20.yaml"
    recipe = b"""data: {path: x, protocol: utd_mhad/cross_subject, batch_size: 8, validation: {subject: [7]}}
encoder: {name: ctrgcn, width: 8, depth: 3, persons: 1}
preprocess: {window: 16, streams: [joint, bone], centring: none, timing: resize}
augmentation: {flip: 0.5}
schedule: {epochs: 3, milestones: [1]}
optimiser: {rate: 0.1}
seed: 3
"""
    rule = b"own/x: {dataset: made, train: {subject: [1, 2, 3]}, test: {subject: [4, 5]}}\n"
    told = b"classes: [{name: a, description: b}, c]\ninstructions: [q]\nanswer: '{name}'\ntemplates: ['{name}']\n"
    study = b"recipe: utd_mhad_joint\nseeds: [0, 1]\narms: {base: {}, wide: {encoder.width: 32}}\nset: {data.path: x}\n"
    map_ = b"protocol: x/y\nsource: utd_mhad\ntarget: made\npairs: {a: wave, b: 3}\nclips: 4\n"
    return [
        Target("layout.yaml", "yaml", lambda: [layout.read_bytes()], reads(load_layout)),
        Target("recipe.yaml", "yaml", lambda: [recipe], reads(lambda path: parse(["--config", str(path)])), batch=15),
        Target("protocol.yaml", "yaml", lambda: [rule], reads(protocol)),
        Target("prompts.yaml", "yaml", lambda: [told], reads(load_prompts)),
        Target("study.yaml", "yaml", lambda: [study], reads(lambda path: read_study(str(path))), batch=15),
        Target("map.yaml", "yaml", lambda: [map_], reads(lambda path: load_map(str(path)))),
    ]


def _store(scratch: Path) -> list[Target]:
    made = scratch / "made_store"
    write_store(made, 6, frames=8)

    def reads(name: str) -> Callable[[Path, bytes], Any]:
        def run(folder: Path, data: bytes) -> None:
            (folder / name).write_bytes(data)
            store = open_store(folder)
            for index in range(len(store)):
                _all_of(store, index)
            check(store, full=True, progress=False)

        return run

    def lay_out(folder: Path) -> None:
        shutil.copytree(made, folder, dirs_exist_ok=True)

    def target(name: str, kind: str, batch: int) -> Target:
        return Target(f"store/{Path(name).name}".replace("/", "-"), kind, lambda: [(made / name).read_bytes()],
                      reads(name), lay_out, batch)  # fmt: skip

    return [
        target("store.json", "json", 40), target("index.arrow", "fixed", 40),
        target("clips/part-00000.arrow", "fixed", 40), target("skipped.csv", "fixed", 20),
    ]  # fmt: skip


def _all_of(store: ClipStore, index: int) -> None:
    store.joints(index), store.confidence(index), store.numbers(index), store.crops(index)
    store.boxes(index), store.pixels(index), store.frame_indices(index)


def _small_bundle(folder: Path) -> Model:
    torch.manual_seed(0)
    encoder = build_encoder("ctrgcn", LAYOUT, 3, {"width": 8, "depth": 3, "persons": 1}).eval()
    preprocess = Preprocess(LAYOUT, LAYOUT, 1, PreprocessOptions(window=8))
    model = Model(describe("ctrgcn", encoder, preprocess, ["a", "b", "c"], {"dataset": "made"}), encoder, preprocess)
    folder.mkdir()
    write_bundle(folder, model)
    return model


def _bundle(scratch: Path, exported: Path | None) -> list[Target]:
    made = scratch / "bundle"
    model = _small_bundle(made)

    def reads(name: str) -> Callable[[Path, bytes], Any]:
        def run(folder: Path, data: bytes) -> None:
            (folder / name).write_bytes(data)
            found = load_bundle(folder)
            assert found(torch.from_numpy(PERSON)[None, None]).isfinite().all(), "scores that are not finite"
            assert found.record is not None

        return run

    def lay_out(folder: Path) -> None:
        shutil.copytree(made, folder, dirs_exist_ok=True)

    targets = [
        Target("bundle-config.json", "json", lambda: [(made / "config.json").read_bytes()],
               reads("config.json"), lay_out),
        Target("bundle-weights", "safetensors", lambda: [(made / "model.safetensors").read_bytes()],
               reads("model.safetensors"), lay_out),
    ]  # fmt: skip
    if (graph := _graph(model, scratch, exported)) is not None:
        targets.append(graph)
    return targets


def _graph(model: Model, scratch: Path, exported: Path | None) -> Target | None:
    try:
        from mmcl.deploy.onnx import export_graph, finish
        from mmcl.deploy.onnx_predictor import OnnxPredictor
    except ImportError:
        return None
    if exported is None:
        data = finish(export_graph(model), model, {"precision": "fp32"}).SerializeToString()
    else:
        data = (exported / "model.onnx").read_bytes()

    def run(folder: Path, changed: bytes) -> None:
        (folder / "model.onnx").write_bytes(changed)
        OnnxPredictor(folder, folder / "model.onnx").classify(PERSON[None])

    def lay_out(folder: Path) -> None:
        shutil.copy((exported or scratch / "bundle") / "config.json", folder)

    return Target("bundle-graph", "bytes", lambda: [data], run, lay_out, batch=20)


def _runs(scratch: Path) -> list[Target]:
    """Files of a run folder and of a checkpoint, as resuming, judging and exporting read them."""
    from mmcl.common.torch_files import read_torch
    from mmcl.engine.parsing import parse
    from mmcl.engine.position import Position
    from mmcl.engine.random_states import random_states, restore_random_states
    from mmcl.engine.run_folder import check_run
    from mmcl.models.folder import find_model

    run, last = scratch / "run", scratch / "run" / "checkpoints" / "last"
    last.mkdir(parents=True)
    model = load_bundle(scratch / "bundle")
    position = Position("d", "s", epochs=1, steps=5, epoch=1)
    config = parse(["--out", "run", "--data.path=x", "--data.protocol=y", "--encoder.width=8", "--resume=true"])
    (run / "config.yaml").write_text(config.text)
    (run / "model.json").write_text(json.dumps(model.description.to_json()))
    (last / "position.json").write_text(json.dumps(position.state_dict()))
    state = {f"encoder.{name}": tensor.clone() for name, tensor in model.encoder.state_dict().items()}
    save_file(state, last / "learned.safetensors")
    joints, lengths = torch.from_numpy(PERSON)[None, None], torch.tensor([6])
    with torch.no_grad():
        scores = model.preprocess.averaged(model.encoder, joints, lengths)
    save_file({"joints": joints, "lengths": lengths, "scores": scores}, last / "probe.safetensors")
    torch.save(random_states(), last / "random_0.pt")

    def lay_out(folder: Path) -> None:
        shutil.copytree(run, folder / "run", dirs_exist_ok=True)

    def reads(name: str, read: Callable[[Path], Any]) -> Callable[[Path, bytes], Any]:
        def run_it(folder: Path, data: bytes) -> None:
            (folder / "run" / name).write_bytes(data)
            read(folder / "run")

        return run_it

    def resumes(folder: Path) -> None:
        find_model(folder)
        Position("d", "s").go_on_from(folder / "checkpoints" / "last")

    def target(name: str, kind: str, read: Callable[[Path], Any], batch: int = 30) -> Target:
        path = run / name
        return Target(f"run-{path.name}", kind, lambda: [path.read_bytes()], reads(name, read), lay_out, batch)

    def opens(folder: Path) -> None:
        find_model(folder).load()

    def official() -> list[bytes]:
        found = []
        for old in (False, True):
            buffer = io.BytesIO()
            torch.save({"state_dict": {"l1.a": torch.ones(3, 4), "n": torch.tensor(3)}, "epoch": 3}, buffer,
                       _use_new_zipfile_serialization=not old)  # fmt: skip
            found.append(buffer.getvalue())
        return found

    def checkpoint(folder: Path, data: bytes) -> None:
        (folder / "x.pt").write_bytes(data)
        read_official(load_state_file(folder / "x.pt"))

    return [
        target("config.yaml", "yaml", lambda folder: check_run(config), 8),
        target("model.json", "json", opens),
        target("checkpoints/last/position.json", "json", resumes),
        target("checkpoints/last/learned.safetensors", "safetensors", opens),
        target("checkpoints/last/probe.safetensors", "safetensors", opens),
        target("checkpoints/last/random_0.pt", "zip",
               lambda folder: restore_random_states(folder / "checkpoints" / "last" / "random_0.pt"), 60),
        Target("checkpoint.pt", "zip", official, checkpoint, batch=100),
        Target("values.pt", "zip", official, lambda folder, data: (
            (folder / "y.pt").write_bytes(data), read_torch(folder / "y.pt")), batch=100),
    ]  # fmt: skip


def _rest() -> list[Target]:
    from mmcl.evaluation.reporting.saved import read_report

    facts = {"top1": 0.5, "main": "top1", "protocol": "x", "split": "test", "data_fingerprint": "y", "n": 2}
    scores = {"ids": npy(np.array(["a", "b"])), "labels": npy(np.array([0, 1])), "scores": npy(np.eye(2)),
              "class_names": npy(np.array(["p", "q"])), "correct": npy(np.array([True, True]))}  # fmt: skip

    def report(folder: Path, data: bytes) -> None:
        (folder / "report.json").write_bytes(data)
        _ = read_report(folder).value

    def arrays(folder: Path, data: bytes) -> None:
        (folder / "scores.npz").write_bytes(data)
        _ = read_report(folder).value

    def lay_out(folder: Path) -> None:
        (folder / "report.json").write_text(json.dumps(facts))
        (folder / "scores.npz").write_bytes(npz(**scores))

    frames = Frames(LAYOUT)
    row = ",".join(f"{value:.3f}" for value in PERSON[0].ravel()).encode()

    def line(folder: Path, data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        if not frames.takes_header(text):
            frames.parse(text)

    return [
        Target("report.json", "json", lambda: [json.dumps(facts).encode()], report, lay_out),
        Target("scores.npz", "zip", lambda: [npz(**scores)], arrays, lay_out),
        Target("stream", "text", lambda: [row, json.dumps(PERSON[0].tolist()).encode()], line, batch=100),
    ]
