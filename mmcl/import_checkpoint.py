"""``mmcl import-checkpoint FILE --out BUNDLE``: official weights as a bundle."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mmcl.common.arguments import in_path, out_path
from mmcl.common.errors import UserError, run
from mmcl.common.files import check_replaceable
from mmcl.models.description import is_bundle

if TYPE_CHECKING:
    from mmcl.deploy.verify import Verified
    from mmcl.models.description import Description


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl import-checkpoint``."""
    parser = argparse.ArgumentParser(
        prog="mmcl import-checkpoint",
        description="Turn a state dict of the official code of CTR-GCN, MMCL-Action, Hyperformer, STEP-CATFormer or\n"
        "SkeleT-GCN (.pt, .pth, .safetensors) into a bundle. Network, size, joints, persons and classes are read\n"
        "from tensors; what inference never used is left behind. What a state dict does not say (stream, window,\n"
        "class names) is for you to say. Nothing in the file is run.",
        epilog="examples:\n"
        "  mmcl import-checkpoint runs-65-162630.pt --out checkpoints/ctrgcn_ntu120 --stream bone\n"
        "  mmcl import-checkpoint ucla.pt --out checkpoints/ucla \\\n"
        "      --window 52 --centring none --scaling box --crop 1.0\n\n"
        "CTR-GCN's NW-UCLA feeder takes its 52 frames from the first to the last, one by one; here a clip is cut into\n"
        "52 equal parts and each part's middle is blended from two frames.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=in_path, metavar="FILE", help="official checkpoint")
    parser.add_argument("--out", required=True, type=out_path, metavar="DIR", help="bundle folder to write")
    parser.add_argument("--stream", default="joint", help="stream it was trained on (default: joint)")
    parser.add_argument("--bone-model", action="store_true",
                        help="STEP-CATFormer: of the bone model, which makes bones of joints inside")  # fmt: skip
    parser.add_argument("--window", type=int, default=64, metavar="T", help="frames it was trained on (default: 64)")
    parser.add_argument(
        "--centring", choices=("first_frame", "every_frame", "none"), default="first_frame",
        help="default: first_frame, as CTR-GCN's NTU preparation does; --scaling box goes with none",
    )  # fmt: skip
    parser.add_argument(
        "--scaling", choices=("none", "box"), default="none",
        help="default: none; box stretches a clip to [-1, 1], as CTR-GCN's NW-UCLA feeder does",
    )  # fmt: skip
    parser.add_argument(
        "--crop", type=float, default=0.95, metavar="SHARE",
        help="central share of a clip that is judged (default: 0.95, CTR-GCN on NTU; its NW-UCLA feeder: 1.0)",
    )  # fmt: skip
    parser.add_argument(
        "--layout",
        metavar="NAME",
        help="joints (default: kinect_v2_25 for 25, ctrgcn_ucla_20 for 20, coco_wholebody_65 for 65)",
    )
    parser.add_argument("--prompts", metavar="NAME", help="prompts file with the class names, in label order")
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that is already there")
    return parser


def import_checkpoint(arguments: argparse.Namespace) -> tuple[str, Description, tuple[str, ...], Verified]:
    """Convert, write and verify.

    Returns:
        The network's name, the bundle's description, the tensors left behind, and how far the bundle is from
        the network that was converted.
    """
    from mmcl.data.prompts import class_names
    from mmcl.deploy.export import export_model
    from mmcl.encoders.official import read_official
    from mmcl.encoders.state_file import load_state_file
    from mmcl.models.bundle import describe
    from mmcl.models.model import Model
    from mmcl.skeletons.layout import load_layout
    from mmcl.skeletons.preprocess import Preprocess
    from mmcl.skeletons.preprocess_options import PreprocessOptions

    tensors = load_state_file(arguments.file)
    try:
        network = read_official(tensors)
    except UserError as error:
        raise UserError(f"{arguments.file}: {error}") from error
    if arguments.bone_model and network.name != "step_catformer":
        raise UserError(f"--bone-model is for STEP-CATFormer, {arguments.file} is {network.title}: say --stream bone")
    if arguments.bone_model:
        network = replace(network, options=replace(network.options, bone_power=1))
    encoder = network.build(load_layout(arguments.layout) if arguments.layout else None)
    names = class_names(arguments.prompts) if arguments.prompts else [f"class {k}" for k in range(network.classes)]
    if len(names) != network.classes:
        raise UserError(
            f"--prompts {arguments.prompts} names {len(names)} classes, the checkpoint has {network.classes}"
        )
    options = PreprocessOptions(
        streams=(arguments.stream,),
        window=arguments.window,
        timing="segments" if network.name == "skelet" else "resize",
        centring=arguments.centring,
        crop=arguments.crop,
        scaling=arguments.scaling,
    )
    preprocess = Preprocess(encoder.layout, encoder.layout, network.options.persons, options)
    provenance = {"imported_from": arguments.file.name, "left_behind": len(network.ignored)}
    model = Model(describe(network.name, encoder, preprocess, names, provenance), encoder, preprocess)
    description, verified = export_model(model, arguments.out)
    return network.title, description, network.ignored, verified


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, import, say what was found."""
    arguments = build_parser().parse_args(argv)
    check_replaceable(arguments.out, is_bundle, arguments.overwrite)
    title, description, ignored, verified = import_checkpoint(arguments)
    layout = description.layout
    print(
        f"{arguments.out}: {title}, {len(description.class_names)} classes, {layout.joint_count} joints "
        f"({layout.name}), {description.persons} person(s), {description.counts['parameters']:,} parameters; "
        f"verified in a fresh process (largest difference {verified.difference:.1e} in double precision; "
        f"{verified.rounding:.1e} is rounding in single)"
    )
    if ignored:
        print(f"left behind: {len(ignored)} tensors that inference never used ({', '.join(_families(ignored))})")
    return 0


def _families(names: Sequence[str]) -> list[str]:
    return sorted({name.split(".")[0] for name in names})


if __name__ == "__main__":
    run(main)
