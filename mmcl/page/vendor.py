"""What the page needs from npm: onnxruntime-web, and MediaPipe's vision tasks for videos and cameras.

Nothing of it is in this repository. `npm pack` fetches the packages from whichever registry npm is set up for; the
archives are checked against the digests below, and kept in the cache folder. These versions make no network call of
their own: MediaPipe's later ones send usage statistics.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mmcl.common.errors import UserError
from mmcl.common.files import atomic_folder

LIMIT = 200 * 2**20  # bytes of one unpacked file
PATIENCE = 300  # seconds for npm


@dataclass(frozen=True)
class Package:
    """Files of an npm package.

    Attributes:
        name: of the package.
        version: of it.
        sha512: of its archive, base64, as npm writes it.
        files: path in the archive -> path in the page's folder.
    """

    name: str
    version: str
    sha512: str
    files: dict[str, str]


PACKAGES = (
    Package(
        "onnxruntime-web", "1.30.0",
        "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
        {
            "package/dist/ort.wasm.min.mjs": "ort.wasm.min.mjs",
            "package/dist/ort-wasm-simd-threaded.mjs": "ort-wasm-simd-threaded.mjs",
            "package/dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
        },
    ),
    Package(
        "@mediapipe/tasks-vision", "0.10.21",
        "TuhKH+credq4zLksGbYrnvJ1aLIWMc5r0UHwzxzql4BHECJwIAoBR61ZrqwGOW6ZmSBIzU1t4VtKj8hbxFaKeA==",
        {
            "package/vision_bundle.mjs": "vision_bundle.mjs",
            "package/wasm/vision_wasm_internal.js": "wasm/vision_wasm_internal.js",
            "package/wasm/vision_wasm_internal.wasm": "wasm/vision_wasm_internal.wasm",
        },
    ),
)  # fmt: skip


def vendored() -> Path:
    """The folder with all files, fetched where it is not there yet.

    Raises:
        UserError: npm is missing or fails, or an archive is not the one that was tested.
    """
    versions = "-".join(package.version for package in PACKAGES)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmcl"
    folder = base / f"page-{versions}"
    if all((folder / name).is_file() for package in PACKAGES for name in package.files.values()):
        return folder
    base.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder, lambda _: True) as out:
        for package in PACKAGES:
            fetch(package, out)
    return folder


def fetch(package: Package, out: Path) -> None:
    """Fetch a package's archive and put its files in place.

    Raises:
        UserError: as :func:`vendored`.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"the page needs {package.name} {package.version}, which npm fetches: install npm")
    with tempfile.TemporaryDirectory() as scratch:
        command = [npm, "pack", "--silent", f"{package.name}@{package.version}"]
        try:
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=PATIENCE, check=False)
        except subprocess.TimeoutExpired as error:
            raise UserError(f"npm has not fetched {package.name} {package.version} in {PATIENCE} s") from error
        archives = list(Path(scratch).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            said = (done.stderr.strip().splitlines() or ["no word"])[-1][:200]
            raise UserError(f"npm cannot fetch {package.name} {package.version}: {said}")
        unpack(archives[0], package, out)


def unpack(archive: Path, package: Package, out: Path) -> None:
    """Check an archive and write the files that are wanted of it.

    Raises:
        UserError: another archive than the one that was tested, or files that are not in it.
    """
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != package.sha512:
        raise UserError(f"{archive.name} is not {package.name} {package.version} as it was tested: its digest differs")
    with tarfile.open(archive) as content:
        for name, place in package.files.items():
            member = content.getmember(name)
            source = content.extractfile(member)
            if source is None or member.size > LIMIT:
                raise UserError(f"{archive.name}: {name} is no file of a usual size")
            path = out / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read())
