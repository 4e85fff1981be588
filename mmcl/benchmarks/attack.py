"""``mmcl bench attack``: what a step of TASAR costs beside one of I-FGSM, and as the released code does it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from mmcl.attacks.ifgsm import IFGSM
from mmcl.attacks.iterative import Iterative, IterativeOptions
from mmcl.attacks.scene import Scene
from mmcl.attacks.tasar import TASAR, TASAROptions, separate_gradients
from mmcl.benchmarks.any_encoder import enliven, random_clips
from mmcl.benchmarks.machine import in_words, machine
from mmcl.benchmarks.timing import compare
from mmcl.common.arguments import AtLeastOne, out_path
from mmcl.common.files import write_json
from mmcl.encoders.building import build_encoder
from mmcl.encoders.counting import count_parameters
from mmcl.evaluation.judging import option_words
from mmcl.models.bundle import describe
from mmcl.models.model import Model
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.surgery.posterior import PosteriorHeads, posterior_of
from mmcl.surgery.posterior_heads import PosteriorHeadsSurgery

SECONDS = 60.0
LAYOUT, HEADS, SLOW = "utd_mhad_20", 3, "released formulation"
EXACT = 1e-4  # largest difference of the two directions, relative to the largest entry
ABOUT = """\
One step's direction on the same random clips and weights, called in turns in one process: I-FGSM, which is the
baseline; TASAR with all heads and samples in one pass forward and one backward; TASAR under `released`, which needs two
backward passes; and then I-FGSM in turns with the released formulation, a pass forward and backward for each sample.
That the sum over samples is the same as there is checked. The motion is fitted once before the steps, timed alone."""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl bench attack``."""
    parser = argparse.ArgumentParser(
        prog="mmcl bench attack", description=f"{__doc__}\n\n{ABOUT}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: mmcl bench attack --encoder ctrgcn --option width=16 --json attack.json",
    )  # fmt: skip
    parser.add_argument("--encoder", default="ctrgcn", metavar="NAME", help="of the surrogate (ctrgcn)")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="of the encoder; repeatable")
    parser.add_argument("--classes", type=int, action=AtLeastOne, default=27, metavar="K", help="of the model (27)")
    parser.add_argument("--frames", type=int, action=AtLeastOne, default=64, metavar="T", help="of a clip (64)")
    parser.add_argument("--samples", type=int, action=AtLeastOne, default=20, metavar="S", help="of each head (20)")
    parser.add_argument("--batch", type=int, action=AtLeastOne, default=8, metavar="N", help="clips of a step (8)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for all rounds ({SECONDS:g})")
    parser.add_argument("--json", type=out_path, metavar="FILE", help="write the numbers there, too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    args = build_parser().parse_args(argv)
    facts = measure(args.encoder, option_words(args.option), args.classes, args.frames, args.samples, args.batch,
                    args.seconds)  # fmt: skip
    print(table(facts))
    if args.json:
        write_json(args.json, facts)
    return 0


def measure(
    name: str, options: dict[str, Any], classes: int, frames: int, samples: int, batch: int, seconds: float
) -> dict[str, Any]:
    """Time the directions.

    Args:
        name: of the encoder.
        options: of the encoder; one person unless they say otherwise.
        classes: K.
        frames: T of clips and window.
        samples: of each head's posterior.
        batch: N.
        seconds: for the rounds.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plain, bayesian = surrogates(name, {"persons": 1, **options}, classes, frames)
    plain, bayesian = plain.to(device), bayesian.to(device)
    joints = 0.3 * torch.randn(batch, 1, frames, plain.layout.joint_count, 3).cumsum(dim=2).to(device)
    heads = posterior_of(bayesian)
    assert heads is not None
    scene = scene_of(bayesian, joints)
    waits = torch.cuda.synchronize if device.type == "cuda" else None
    tasar = TASAR(TASAROptions(samples=samples))
    fitting = compare({"fit": lambda: tasar.ascent(scene)}, 1.0, least=1, warm=0, synchronise=waits)["fit"]
    weights = tasar.weights(heads, 0)
    steps: dict[str, Callable[[], Tensor]] = {
        "I-FGSM": direction(IFGSM(IterativeOptions()), scene_of(plain, joints)),
        "TASAR": direction(tasar, scene),
        "TASAR, released": direction(TASAR(TASAROptions(samples=samples, released=True)), scene),
    }
    slow = {"I-FGSM": steps["I-FGSM"], SLOW: lambda: one_by_one(scene, plain, heads, weights)}
    expected, found = one_by_one(scene, plain, heads, weights), separate_gradients(scene, heads, joints, weights)[1]
    difference = float((found - expected).abs().max() / expected.abs().max())
    timings = compare(steps, seconds / 2, least=5, warm=1, synchronise=waits)
    timings |= {SLOW: compare(slow, seconds / 2, least=2, warm=0, synchronise=waits)[SLOW]}
    return {
        "machine": machine("torch"), "device": device.type, "encoder": name,
        "parameters": count_parameters(plain.encoder), "classes": classes, "frames": frames, "clips": batch,
        "samples": HEADS * samples, "fit_seconds": fitting.seconds, "difference": difference, "bound": EXACT,
        "lines": [{"step": step, **asdict(timing)} for step, timing in timings.items()],
    }  # fmt: skip


def surrogates(name: str, options: dict[str, Any], classes: int, frames: int) -> tuple[Model, Model]:
    """A model with lived-in weights, and the same one with posterior heads."""
    torch.manual_seed(0)
    layout = load_layout(LAYOUT)
    models: list[Model] = []
    for bayesian in (False, True):
        encoder = build_encoder(name, layout, classes, options)
        if models:
            encoder.load_state_dict(models[0].encoder.state_dict())
        else:
            enliven(encoder, random_clips(encoder, 4, frames, 1))
        preprocess = Preprocess(layout, layout, encoder.options.persons, PreprocessOptions(window=frames))
        description = describe(name, encoder, preprocess, [str(k) for k in range(classes)], count=False)
        if bayesian:
            structure = {"heads": HEADS, "classes": classes, "released": False}
            encoder = PosteriorHeadsSurgery.rebuild(encoder, structure)
        models.append(Model(description, encoder.eval(), preprocess))
    return models[0], models[1]


def scene_of(model: Model, joints: Tensor) -> Scene:
    """All joints there, and the first classes as labels."""
    N, M, T, V, _ = joints.shape
    there = torch.ones(N, M, T, V, dtype=torch.bool, device=joints.device)
    labels = torch.arange(N, device=joints.device) % len(model.class_names)
    limit = joints.new_full((N, 1, 1, 1, 3), 0.01)
    return Scene(model, joints, torch.full((N,), T, device=joints.device), labels, there, limit)


def direction(attack: Iterative, scene: Scene) -> Callable[[], Tensor]:
    """A step of an attack; what is done once a run is done here."""
    ascent = attack.ascent(scene)
    return lambda: ascent(scene.joints, 0)


def one_by_one(scene: Scene, surrogate: Model, heads: PosteriorHeads, weights: Tensor) -> Tensor:
    """The gradient of all samples, each with its own pass through the network, summed."""
    total = torch.zeros_like(scene.joints)
    for row in weights.split(1):

        def alone(x: Tensor, row: Tensor = row) -> Tensor:
            return heads.each(surrogate(x, scene.lengths, grad=True), row)[0]

        total += scene.gradient(scene.joints, alone)
    return total


def table(facts: dict[str, Any]) -> str:
    """The measurements as lines of text and a table in Markdown."""
    rows = [
        f"{in_words(facts['machine'])}; torch {facts['machine']['versions']['torch']}, {facts['device']}",
        f"{facts['encoder']} of {facts['parameters']:,} parameters, {facts['classes']} classes",
        f"{facts['clips']} clips of {facts['frames']} frames, {facts['samples']} samples; fitting the motion once: "
        f"{facts['fit_seconds']:.2f} s",
        f"largest difference of the sum over samples to the released formulation: {facts['difference']:.0e}"
        + ("" if facts["difference"] <= facts["bound"] else " - TOO MUCH: they do not compute the same"),
        "",
        "| step | ms | of a step of I-FGSM (quartiles) |",
        "| --- | ---: | --- |",
    ]
    for one in facts["lines"]:
        share = f"**{1 / one['ratio']:.2f}** ({1 / one['ratio_high']:.2f}-{1 / one['ratio_low']:.2f})"
        rows.append(f"| {one['step']} | {1e3 * one['seconds']:.1f} | {share} |")
    return "\n".join(rows)
