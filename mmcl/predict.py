"""``mmcl predict BUNDLE FILE…``: label and probability for skeleton files, without any of the training stack."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from mmcl.common.arguments import AtLeastOne, in_path
from mmcl.common.errors import UserError, run
from mmcl.common.printing import complain, printable
from mmcl.deploy.answers import explained, show
from mmcl.deploy.film_flags import add_film_flags, check_film_flags
from mmcl.deploy.judges import judge_of, rejection_of
from mmcl.deploy.reading_flags import add_reading_flags
from mmcl.models.description import GRAPHS
from mmcl.models.hub import local
from mmcl.pose.film import is_film
from mmcl.pose.flags import add_pose_flags

ABOUT = """Classify recorded skeletons, or videos, with an exported bundle. One clip a file: .npy,
.npz, .json or .csv holding (frames, joints, 3) or (persons, frames, joints, 3), NTU .skeleton, or
UTD-MHAD .mat. A joint has a fourth number where a model looks at confidences, and two (in
pixels) where it was made for keypoints of pictures. With an ONNX graph in the bundle, numpy
and onnxruntime are all it needs (and scipy for .mat); without, torch and safetensors.

A video (.mp4, .avi, .mkv …) is looked at by a pose estimator first (`mmcl pose` tells more).
Each person gets a label for each window of --span frames, every --hop frames; windows are
joined into segments with a begin, an end and a probability.

--follow classifies while frames arrive, one a line, from a pipe (-) or from a file: a
JSON array (joints, 3) or (persons, joints, 3), or the same numbers in a row with commas
between them, with a header before them or without; null, NA, nan and empty cells are
missing joints, [] or null is a frame with nobody in it. A line that is no frame is left
out, with a warning. It ends with its input, or with Ctrl-C; --tail waits for what is appended.
--follow camera classifies what a camera shows. A causal model (`--encoder.causal=true` of
training) takes each frame once and looks back as far as it learned to; --span makes it judge
windows like any other.

A clip that is hard to believe (upside down, mirrored, in another unit, a picture posing as
space, stuck …) is named on stderr with what to do about it; what is surely wrong (empty
frames at the ends, placeholders, slots exchanged) is mended, and said."""
EXAMPLES = """examples:
  mmcl predict checkpoints/utd a1_s2_t1_skeleton.mat mine.npy --top 5
  mmcl predict checkpoints/open mine.npy --classes "wave,throw a ball"
  mmcl predict checkpoints/utd party.mp4 --draw labelled.mp4 --srt party.srt
  mmcl predict checkpoints/utd --follow camera --mirrored --people 1
  my_camera | mmcl predict checkpoints/utd --follow - --span 64 --hop 10
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl predict``."""
    parser = argparse.ArgumentParser(
        prog="mmcl predict",
        description=ABOUT,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "bundle", type=in_path, metavar="BUNDLE", help="folder that mmcl export wrote, or hf://user/name"
    )
    parser.add_argument("files", type=in_path, nargs="*", metavar="FILE", help="skeleton files, or videos")
    parser.add_argument(
        "--follow", type=in_path, metavar="SOURCE", help="classify frames as they come: file, -, camera"
    )
    parser.add_argument("--tail", action="store_true", help="with --follow: wait for what is appended to the file")
    parser.add_argument("--span", type=int, metavar="N", help="frames judged together (default: the model's window)")
    parser.add_argument("--hop", type=int, metavar="N", help="frames from label to label (default: a quarter of that)")
    parser.add_argument(
        "--top",
        type=int,
        action=AtLeastOne,
        default=1,
        metavar="N",
        help="classes a file, most probable first (default: 1)",
    )
    parser.add_argument(
        "--classes",
        metavar="C",
        help="open vocabulary: judge only these classes, trained or not, by their texts. Names separated by commas "
        "(`own`: all that the bundle's table has), or a .yaml file of names and descriptions. Texts come from the "
        "table; those of other names, and of descriptions that the table was not made of, need the training stack and "
        "the text model that the bundle names. Probabilities "
        "are a softmax over these classes alone: they say which of them a clip is most like, never that it is one",
    )
    parser.add_argument(
        "--explain", action="store_true", help="also name the three joints whose motion spoke most for the answer, "
        "compared with the clip's own mean pose held still; needs torch and weights (`mmcl explain` draws pictures)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    parser.add_argument(
        "--no-reject", action="store_true",
        help="always name a class, also where the bundle would answer 'none of these' (mmcl export --reject)",
    )  # fmt: skip
    parser.add_argument(
        "--layout",
        metavar="NAME",
        help="joint layout of .npy, .npz, .json and .csv files, where it is not the bundle's own",
    )
    add_reading_flags(parser)
    parser.add_argument(
        "--backend", choices=("auto", "torch", "onnx", *GRAPHS), default="auto",
        help="what computes: torch, or one of the bundle's graphs; onnx is the most precise one. auto (the default): "
        "the most precise graph if it can be used, else torch (for --classes, --device, and files in another layout)",
    )  # fmt: skip
    parser.add_argument("--device", help="torch device (default: cpu)")
    add_film_flags(parser)
    add_pose_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, predict, print."""
    arguments = build_parser().parse_intermixed_args(argv)  # files may stand behind options
    films = any(check(arguments))
    arguments.bundle = local(arguments.bundle)
    if films:
        arguments.rejection = rejection_of(arguments)
        return watch(arguments)
    predictor, only = judge_of(arguments)
    arguments.rejection = rejection_of(arguments)
    if arguments.follow is not None:
        return follow(predictor, arguments, only)
    return predict_files(predictor, arguments, only)


def check(arguments: argparse.Namespace) -> list[bool]:
    """Whether what was asked for goes together; of every file, or of what is followed, whether it is a video.

    Raises:
        UserError: it does not.
    """
    if (arguments.follow is None) == (not arguments.files):
        raise UserError("give skeleton files, or --follow with a source of frames")
    films = [is_film(path) for path in arguments.files or [arguments.follow]]
    if any(films) and not all(films):
        raise UserError("give videos or skeleton files, not both at once")
    if arguments.follow is None and not any(films) and (arguments.span, arguments.hop) != (None, None):
        raise UserError("--span and --hop belong to --follow and videos: of a skeleton file, the whole clip is judged")
    if arguments.tail and arguments.follow is None:
        raise UserError("--tail belongs to --follow")
    if arguments.explain and (arguments.follow is not None or arguments.classes is not None or any(films)):
        raise UserError("--explain is of skeleton files and of the classes that were trained: leave out --follow and "
                        "--classes, and turn videos into skeletons first (`mmcl pose`)")  # fmt: skip
    check_film_flags(arguments, any(films))
    return films


def predict_files(predictor: Any, arguments: argparse.Namespace, only: list[str] | None) -> int:
    """Print what is in each skeleton file; the exit status."""
    from mmcl.deploy.quickest import classify_files

    shown = [printable(str(path)) for path in arguments.files]  # a line break in a name begins no line
    width = max(map(len, shown))
    failed = 0
    if arguments.explain:
        answers: Iterable[Any] = (explained(predictor, path) for path in arguments.files)
    else:
        answers = classify_files(predictor, arguments.files)
    for path, name, found in zip(arguments.files, shown, answers, strict=True):
        if isinstance(found, UserError):
            complain("error", str(found))
            failed += 1
            continue
        ranking, spoken = found if arguments.explain else (found, None)
        show(arguments, ranking, {"file": str(path)}, f"{name:<{width}}", only, spoken)
    return 2 if failed else 0


def watch(arguments: argparse.Namespace) -> int:
    """The side that looks at videos and cameras."""
    from mmcl.deploy.watch import film_estimator, follow_film, watch_files
    from mmcl.models.description import read_bundle

    estimator = film_estimator(arguments)
    go_on = watch_files if arguments.follow is None else follow_film
    return go_on(*judge_of(arguments), read_bundle(arguments.bundle), estimator, arguments, arguments.rejection)


def follow(predictor: Any, arguments: argparse.Namespace, only: list[str] | None) -> int:
    """Print a label per hop until the frames end, or somebody presses Ctrl-C."""
    from mmcl.common.errors import BadClip
    from mmcl.deploy.follow import Frames
    from mmcl.deploy.followed_lines import lines_of
    from mmcl.deploy.streams import open_streams
    from mmcl.models.description import read_bundle

    frames = Frames(predictor.joints, predictor.reading)
    stream = open_streams(predictor, read_bundle(arguments.bundle), arguments.span, arguments.hop)()
    try:
        for number, line in enumerate(lines_of(arguments.follow, arguments.tail), 1):
            if number == 1 and frames.takes_header(line):
                continue
            try:
                found = stream.push(frames.parse(line))
            except BadClip as error:
                complain("warning", f"line {number} is left out: {error}")
                continue
            if found is not None:
                show(arguments, found.ranking, {"frame": found.frame}, f"{found.frame:>8}", only)
    except KeyboardInterrupt:
        return 0
    if (found := stream.finish()) is not None:
        show(arguments, found.ranking, {"frame": found.frame}, f"{found.frame:>8}", only)
    elif not stream.frames:
        raise UserError(f"{arguments.follow}: no frames came")
    return 0


if __name__ == "__main__":
    run(main)
