"""README and docs say what is there: links lead somewhere, commands parse, the site builds without a warning."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from functools import cache
from importlib import import_module
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import pytest

from mmcl.bench import SUBJECTS
from mmcl.cli import VERBS
from mmcl.data.readers import READERS
from mmcl.engine.parsing import parse
from mmcl.engine.recipes import find_recipe

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
RECIPES = sorted((ROOT / "mmcl" / "recipes").rglob("*.yaml"))
SHELL_WORDS = {"…", "...", "do", "done", "then"}


def commands(path: Path) -> Iterator[str]:
    """Every `mmcl VERB …` of a page's code blocks or of a recipe's comments, one a string, comments taken off."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        lines = [line[1:].strip() for line in text.splitlines() if line.startswith("#   ")]
    else:
        blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
        blocks += ["\n".join(re.findall(r"^    ((?:mmcl|\./run\.sh|accelerate) (?:.*\\\n)*.*)", text, re.M))]
        lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    for line in lines:
        for part in re.split(r"&&|\|\||[;|]", re.sub(r"\s#.*|\s{3,}\S.*$", "", line)):
            for start in (r"\bmmcl (?=[a-z])", r"accelerate launch .*?mmcl/train\.py "):
                if match := re.search(start, part):
                    verb = "train " if "accelerate" in match.group() else ""
                    yield verb + part[match.end() :].strip()
                    break


ALL = sorted({(str(page.relative_to(ROOT)), command) for page in [*PAGES, *RECIPES] for command in commands(page)})


@cache
def help_of(verb: str, *words: str) -> str:
    """What `mmcl VERB WORDS --help` prints; in this process, which has imported what it needs."""
    printed = StringIO()
    with patch.object(sys, "argv", [f"mmcl {verb}", *words, "--help"]), redirect_stdout(printed), suppress(SystemExit):
        import_module(VERBS[verb][0]).main()
    return printed.getvalue()


def test_there_are_commands_to_check() -> None:
    assert len(ALL) > 60 and {command.split()[0] for _, command in ALL} > {"train", "evaluate", "export", "predict"}


@pytest.mark.parametrize("verb", sorted({command.split()[0] for _, command in ALL}))
def test_commands_of_a_verb_are_as_it_takes_them(verb: str) -> None:
    assert verb in VERBS, [page for page, command in ALL if command.split()[0] == verb]
    for page, command in ALL:
        words = shlex.split(command)
        if words[0] != verb:
            continue
        if verb == "train":
            check_training(page, words[1:])
            continue
        about: tuple[str, ...] = ()
        if verb == "prepare" and words[1] not in SHELL_WORDS:
            assert words[1] in READERS, f"{page}: {command}"
            about = (words[1],)  # a data set has flags of its own
        elif verb == "bench":
            assert words[1] in SUBJECTS, f"{page}: {command}"
            about = (words[1],)  # and so has what is measured
        for word in words[1:]:
            if word.startswith("--") and "." not in word:
                flag = word.partition("=")[0]
                assert flag in help_of(verb, *about), f"{page}: {flag} of: mmcl {command}"


def check_training(page: str, words: list[str]) -> None:
    """A training command parses, but for the checkpoints that it names, which nobody has made."""
    kept = [word for word in words if word not in SHELL_WORDS and not word.startswith("--start.checkpoint")]
    if "--help" in kept or not any(word.startswith("--config") for word in kept):
        return
    kept = [word.replace("$s", "joint") for word in kept]  # the loop over streams
    kept = [re.sub(r"(?<=seed=|\w{4}/)[SD]$", "0", word) for word in kept]  # a seed, a draw
    for number, word in enumerate(kept):
        if word == "--config":
            find_recipe(kept[number + 1])
    if any(word.startswith("--start.") for word in kept) or "adapt" in kept:
        return
    try:
        parse([*kept, "--data.path=data/x", "--start.checkpoint="])
    except Exception as error:
        raise AssertionError(f"{page}: mmcl train {' '.join(words)}: {error}") from error


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?:|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        goal = (page.parent / name).resolve() if name else page
        assert goal.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(goal), f"{page.name}: {target}"


def test_the_readme_is_short_and_names_every_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.encode()) <= 8192
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in navigation, f"{page} is in no navigation"


def test_rooms_of_the_tables_are_there() -> None:
    for page in (ROOT / "README.md", ROOT / "docs" / "architecture.md"):
        for room in re.findall(r"^\| `(?:mmcl/)?(\w+)/`", page.read_text(encoding="utf-8"), re.M):
            assert (ROOT / "mmcl" / room).is_dir(), f"{page.name} names the room {room}"


def test_every_verb_is_in_the_documentation() -> None:
    named = {command.split()[0] for _, command in ALL} | {"demo"}
    assert not set(VERBS) - named


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the docs extra is not installed")
    pytest.importorskip("material", reason="the docs extra is not installed")
    arguments = ["build", "--strict", "--quiet", "-f", str(ROOT / "mkdocs.yml"), "-d", str(tmp_path / "site")]
    done = subprocess.run([sys.executable, "-m", "mkdocs", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "results" / "index.html").is_file()


def test_modules_of_the_verbs_are_there() -> None:
    for module, _ in VERBS.values():
        assert callable(import_module(module).main)
