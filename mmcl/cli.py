"""``mmcl VERB …``: the same scripts as ``mmcl/<verb>.py``, by name."""

from __future__ import annotations

import os
import shlex
import sys
from importlib import import_module

from mmcl.common.errors import UserError, run

# verb -> (module, what it does); a verb's module is imported only when it is asked for
VERBS = {
    "demo": ("mmcl.demo", "the whole path on generated recordings, in a few minutes"),
    "pose": ("mmcl.estimate_pose", "videos -> skeleton clips, by a pose estimator"),
    "prepare": ("mmcl.prepare", "a raw dataset folder -> clip store"),
    "check": ("mmcl.check", "look over a clip store: verdict and contact sheet"),
    "merge": ("mmcl.merge", "shards that several machines prepared -> one clip store"),
    "show": ("mmcl.show", "one clip as an animation, or as a page on which it turns"),
    "train": ("mmcl.train", "train a recipe (on GPUs: accelerate launch mmcl/train.py …)"),
    "evaluate": ("mmcl.evaluate", "judge a run or bundle on its protocol's test clips"),
    "probe": ("mmcl.probe", "what an encoder's features are worth: nearest neighbours, linear, few-shot, fine-tuning"),
    "attack": ("mmcl.attack", "how robust one's own models are against small changes of skeletons"),
    "zero-shot": ("mmcl.zero_shot", "judge a model on another data set, or on classes that it never saw"),
    "explain": ("mmcl.explain", "which joints spoke for an answer, as pictures and numbers"),
    "ensemble": ("mmcl.ensemble", "fuse several models' scores by clip id"),
    "compare": ("mmcl.compare", "reports side by side, with intervals of their differences"),
    "adapt": ("mmcl.adapt", "a trained model's batch-norm statistics -> those of another data set"),
    "fuse": ("mmcl.fuse", "ARN-LSTM streams that were trained apart -> one network"),
    "compress": ("mmcl.compress", "a trained model -> smaller ones by low-rank factors, with a report"),
    "study": ("mmcl.study", "several settings x seeds from one recipe, and one table with intervals"),
    "export": ("mmcl.export", "a run -> bundle: a folder with the skeleton model alone, verified"),
    "push": ("mmcl.push", "a bundle -> the Hugging Face hub, with a model card"),
    "pull": ("mmcl.pull", "a bundle from the Hugging Face hub"),
    "import-checkpoint": ("mmcl.import_checkpoint", "an official CTR-GCN or MMCL checkpoint -> bundle"),
    "predict": ("mmcl.predict", "label and probability for skeleton files, videos, or a stream of frames"),
    "serve": ("mmcl.serve", "a bundle at work in the browser: skeleton files, videos, the camera"),
    "bench": ("mmcl.bench", "measure speed and size on this machine"),
    "build-tower": ("mmcl.build_towers", "tiny random or mini pretrained CLIP / LLM folders, offline"),
}

LOG_SECONDS = 60  # from one state of a progress bar to the next where it is written to a file

WORDS = """\
The usual way: prepare, check, train, evaluate, export, predict; `mmcl demo` goes it once, without any data of yours.

  store     folder of prepared clips             recipe    .yaml file of a training's settings
  run       folder of one training               protocol  rule that says which clips train and which test
  bundle    folder of an exported model          report    folder of one judgement"""


def _usage() -> str:
    width = max(len(verb) for verb in VERBS)
    lines = [f"  {verb:<{width}}  {words}" for verb, (_, words) in VERBS.items()]
    return "usage: mmcl VERB [options]\n\n" + "\n".join(lines) + f"\n\n{WORDS}\n\n`mmcl VERB --help` tells more."


def _main() -> int:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if arguments[0] == "--version":
        from mmcl import __version__

        print(f"mmcl {__version__}")
        return 0
    if arguments[0] not in VERBS:
        raise UserError(f"unknown verb '{arguments[0]}': choose one of {', '.join(VERBS)}")
    sys.argv = [f"mmcl {arguments[0]}", *arguments[1:]]
    if not sys.stderr.isatty():  # tqdm, and that of the processes begun here, would write ten states a second
        os.environ.setdefault("TQDM_MININTERVAL", str(LOG_SECONDS))
    return int(import_module(VERBS[arguments[0]][0]).main() or 0)


def call(command: str) -> None:
    """Run a command in this process, in a notebook for instance: ``call("train --config own_joint --out runs/mine")``.

    Args:
        command: as one would type it behind ``mmcl``.

    Raises:
        UserError: there is no such verb, the command says what is wrong, or it ends with another status than 0.
    """
    verb, *words = shlex.split(command)
    if verb not in VERBS:
        raise UserError(f"unknown verb '{verb}': choose one of {', '.join(VERBS)}")
    try:
        status = import_module(VERBS[verb][0]).main(words)
    except SystemExit as ended:  # the parser's, which has printed why
        status = ended.code
    if status:
        raise UserError(f"`mmcl {command}` ended with status {status}")


def main() -> None:
    """Entry point of the ``mmcl`` command."""
    run(_main)
