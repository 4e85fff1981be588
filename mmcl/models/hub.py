"""Bundles on the Hugging Face hub, through its own library: revisions, folders inside a repository, its cache.

A reference is ``hf://user/name``, with ``/folder`` and ``@revision`` where wanted. What is fetched is what a bundle
consists of and nothing else: no code, no pickle. Tokens come from the library's own login (``hf auth login``) alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmcl.common.errors import UserError
from mmcl.models.description import CARD, FAMILIAR, GRAPHS, STEPS, VOCABULARY, WEIGHTS, read_bundle
from mmcl.models.description_file import CONFIG

FILES = (CONFIG, WEIGHTS, VOCABULARY, FAMILIAR, CARD, STEPS, *GRAPHS.values())
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REFERENCE = re.compile(rf"(?:hf:/{{1,2}})?({_NAME}/{_NAME})((?:/{_NAME})*)(?:@([A-Za-z0-9][A-Za-z0-9._/-]{{0,200}}))?")


@dataclass(frozen=True)
class Reference:
    """A bundle on the hub.

    Attributes:
        repo: ``user/name``.
        folder: inside the repository; "" for the whole of it.
        revision: branch, tag or commit; None for the default branch.
    """

    repo: str
    folder: str = ""
    revision: str | None = None

    def __str__(self) -> str:
        return f"hf://{self.repo}" + (f"/{self.folder}" if self.folder else "") + (
            f"@{self.revision}" if self.revision else "")  # fmt: skip


def is_reference(path: str | Path) -> bool:
    """Whether something names a bundle on the hub. A Path makes one slash of two."""
    return str(path).startswith("hf:/")


def parse_reference(text: str | Path) -> Reference:
    """``hf://user/name/folder@revision`` -> its parts; ``hf://`` may be left out.

    Raises:
        UserError: it is none.
    """
    found = _REFERENCE.fullmatch(str(text))
    if found is None or ".." in str(text):
        raise UserError(
            f"'{str(text):.100}' names no bundle on the hub: user/name, user/name/folder, user/name@revision"
        )
    return Reference(found.group(1), found.group(2).strip("/"), found.group(3))


def local(path: str | Path) -> Path:
    """A folder as it is, or the copy of a bundle on the hub in the library's cache.

    Raises:
        UserError: it is on the hub and cannot be had.
    """
    return fetch(parse_reference(path)) if is_reference(path) else Path(path)


def fetch(reference: Reference) -> Path:
    """Download a bundle into the library's cache, unless it is there; offline, what the cache holds counts.

    Returns:
        The folder of the bundle.

    Raises:
        UserError: there is no such bundle, or the hub cannot be reached and the cache lacks it.
    """
    hub = _library()
    prefix = f"{reference.folder}/" if reference.folder else ""
    try:
        snapshot = hub.snapshot_download(
            reference.repo, revision=reference.revision, allow_patterns=[prefix + name for name in FILES],
            library_name="mmcl",
        )  # fmt: skip
    except Exception as error:  # of many kinds: not found, gated, offline, a proxy
        raise UserError(f"{reference} cannot be fetched: {_words(error)}") from error
    folder = Path(snapshot) / reference.folder
    if not (folder / CONFIG).is_file():
        raise UserError(f"{reference} holds no bundle (no {CONFIG} in it)")
    return folder


def push(bundle: Path, reference: Reference, card: str, private: bool = False, message: str | None = None) -> str:
    """Upload a bundle, in one commit. What an earlier bundle had there and this one has not is removed by it.

    Args:
        bundle: its folder.
        reference: where to; its revision is a branch, which must be there.
        card: README.md in its place on the hub.
        private: make a private repository, where it is a new one.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        UserError: no bundle, nobody is logged in, or the hub refuses.
    """
    hub = _library()
    read_bundle(bundle)
    prefix = f"{reference.folder}/" if reference.folder else ""
    files: dict[str, Any] = {name: str(bundle / name) for name in FILES if (bundle / name).is_file()}
    files[CARD] = card.encode()
    operations: list[Any] = [hub.CommitOperationAdd(prefix + name, content) for name, content in files.items()]
    try:
        api = hub.HfApi(library_name="mmcl")
        api.create_repo(reference.repo, private=private, exist_ok=True)
        there = set(api.list_repo_files(reference.repo, revision=reference.revision))
        old = [prefix + name for name in FILES if name not in files and prefix + name in there]
        operations += [hub.CommitOperationDelete(path) for path in old]  # graphs of another network answer otherwise
        done = api.create_commit(
            reference.repo, operations, commit_message=message or "Upload a skeleton bundle with mmcl",
            revision=reference.revision,
        )  # fmt: skip
    except Exception as error:  # of many kinds: no login, no permission, offline
        raise UserError(f"{reference} cannot be pushed to: {_words(error)}; `hf auth login` logs in") from error
    return str(done.commit_url)


def _words(error: Exception) -> str:
    """The first line of what went wrong that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def _library() -> Any:
    if find_spec("huggingface_hub") is None:
        raise UserError('the hub needs huggingface_hub, not installed here: run `pip install "mmcl[hub]"`')
    import huggingface_hub

    return huggingface_hub


def hub_card(card: str, head: Mapping[str, Any]) -> str:
    """A model card with its YAML head; a head that is there already is replaced.

    Args:
        card: README.md of the bundle.
        head: see :func:`mmcl.models.hub_head.card_head`.
    """
    import yaml

    body = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
    return f"---\n{yaml.safe_dump(dict(head), sort_keys=False, allow_unicode=True)}---\n\n{body.lstrip()}"
