"""Directories of plain `.npy` arrays with a manifest: how logs, matrices and models are stored.

Arrays are separate uncompressed files so that a reader can memory-map them and share the pages with
its sibling processes; the manifest holds what is not an array, and each file's size and SHA-256. The
same content gives the same bytes, file by file.
"""

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reco_assets.errors import BadInput, CorruptArtifact, MissingUpstream, StorageFull, StorageUnwritable

Array = npt.NDArray[Any]

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_READ_ATTEMPTS = 5
_READ_PAUSE_S = 0.02
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_artifact(
    directory: Path | str, kind: str, arrays: Mapping[str, Array], metadata: Mapping[str, Any]
) -> Path:
    """Write `arrays` and JSON-able `metadata` to `directory`, replacing what was there.

    The files are written and synced beside the target and renamed into place, so that a reader sees
    all of the old artifact or all of the new one. Renames cannot exchange two directories portably:
    a crash in the instant between the two renames leaves no artifact, which reads as `MissingUpstream`.
    Debris of a crashed writer is removed by the next one; one artifact has one writer at a time.

    Raises:
        StorageFull: the file system had no room; the old artifact is untouched.
        StorageUnwritable: it refused the write for another reason, such as missing rights; likewise.
    """
    target = Path(directory)
    new, old = _sibling(target, "tmp"), _sibling(target, "old")
    try:
        with _storage_errors(target):
            for debris in (new, old):
                shutil.rmtree(debris, ignore_errors=True)
            new.mkdir(parents=True)
            files = {name: _write_array(new / f"{name}.npy", array) for name, array in sorted(arrays.items())}
            manifest = {
                "format_version": FORMAT_VERSION,
                "kind": kind,
                "metadata": dict(metadata),
                "files": files,
            }
            text = json.dumps(manifest, sort_keys=True, indent=1, allow_nan=False) + "\n"
            _write_bytes(new / MANIFEST, text.encode())
            _sync_directory(new)
            if target.exists():
                target.rename(old)
            new.rename(target)
            _sync_directory(target.parent)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
    return target


def read_artifact(
    directory: Path | str, kind: str, *, redo: str, mmap: bool = True, verify: bool = True
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read the arrays (read-only, memory-mapped unless `mmap` is false) and the metadata.

    Args:
        directory: what `write_artifact` was given.
        kind: what the manifest must call itself.
        redo: the command that makes the artifact again, for the error message.
        mmap: map the files instead of copying them into memory.
        verify: compare checksums, which reads every byte once; sizes are always compared. Without it a
            file that was altered at the same size goes unnoticed: leave it out only where the files
            were verified since they were written.

    What another process replaces meanwhile is read again: the arrays are all of one artifact.

    Raises:
        MissingUpstream: there is no such directory.
        CorruptArtifact: the manifest or a file is missing, cut off, altered, or of another kind.
    """
    target = Path(directory)
    for _ in range(_READ_ATTEMPTS - 1):
        before = _identity(target)
        try:
            found = _read_once(target, kind, redo=redo, mmap=mmap, verify=verify)
        except (MissingUpstream, CorruptArtifact):
            if _identity(target) == before:
                raise
        else:
            if _identity(target) == before:
                return found
        time.sleep(_READ_PAUSE_S)  # a writer is between its two renames
    return _read_once(target, kind, redo=redo, mmap=mmap, verify=verify)


def _identity(directory: Path) -> int | None:
    """Differs from one artifact of that name to the next: the new one is there before the old one goes."""
    try:
        return directory.stat().st_ino
    except FileNotFoundError:
        return None


def _read_once(
    target: Path, kind: str, *, redo: str, mmap: bool, verify: bool
) -> tuple[dict[str, Array], dict[str, Any]]:
    if not target.is_dir():
        raise MissingUpstream(f"No {kind} at {target}. Make it with `{redo}`.")

    def corrupt(path: Path, problem: str) -> CorruptArtifact:
        return CorruptArtifact(f"{path} {problem}. Remove {target} and make it again with `{redo}`.")

    try:
        manifest = json.loads((target / MANIFEST).read_bytes())
        version, found, files = manifest["format_version"], manifest["kind"], manifest["files"]
        metadata, expected = manifest["metadata"], {n: (e["bytes"], e["sha256"]) for n, e in files.items()}
    except FileNotFoundError:
        raise corrupt(target / MANIFEST, "is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise corrupt(target / MANIFEST, f"is not a readable manifest ({error!r})") from error
    if version != FORMAT_VERSION:
        raise corrupt(target / MANIFEST, f"has format version {version!r}, this code reads {FORMAT_VERSION}")
    if found != kind:
        raise corrupt(target / MANIFEST, f"describes a {found!r}, not a {kind!r}")

    arrays: dict[str, Array] = {}
    for name, (size, digest) in expected.items():
        path = target / f"{name}.npy"
        try:
            actual = path.stat().st_size
            if actual != size:
                raise corrupt(path, f"has {actual} bytes instead of {size}")
            if verify and _sha256(path) != digest:
                raise corrupt(path, "does not match its checksum")
            # A mapping of zero elements is refused by mmap; such an array is read instead.
            mode: Any = "r" if mmap else None
            array = np.load(path, mmap_mode=mode, allow_pickle=False)
        except FileNotFoundError:
            raise corrupt(path, "is missing") from None
        except (ValueError, EOFError, OSError) as error:
            raise corrupt(path, f"cannot be read ({error})") from error
        # Not as np.memmap, whose every slice takes microseconds.
        arrays[name] = array.view(np.ndarray)
        arrays[name].flags.writeable = False
    return arrays, metadata


def artifact_digest(directory: Path | str) -> str:
    """SHA-256 of an artifact's manifest, which holds the digests of all its files.

    Raises:
        MissingUpstream: There is no artifact.
    """
    target = Path(directory)
    try:
        return hashlib.sha256((target / MANIFEST).read_bytes()).hexdigest()
    except FileNotFoundError:
        raise MissingUpstream(
            f"No {target}. Make it with `reco run --partition {target.parent.name}`."
        ) from None


def take(arrays: Mapping[str, Array], directory: Path | str, *names: str, redo: str) -> list[Array]:
    """The named arrays, in that order.

    Raises:
        CorruptArtifact: one of them is not in the artifact.
    """
    missing = [name for name in names if name not in arrays]
    if missing:
        raise CorruptArtifact(
            f"{directory} lacks {', '.join(missing)}. Remove it and make it again with `{redo}`."
        )
    return [arrays[name] for name in names]


@contextmanager
def consistent(directory: Path | str, redo: str) -> Iterator[None]:
    """Around what puts a stored object together: arrays that contradict each other are `CorruptArtifact`."""
    try:
        yield
    except (BadInput, ValueError, KeyError, TypeError) as error:
        raise CorruptArtifact(
            f"{directory} contradicts itself: {error} Remove it and make it again with `{redo}`."
        ) from error


def _sibling(target: Path, suffix: str) -> Path:
    return target.parent / f".{target.name}.{suffix}"


def _write_array(path: Path, array: Array) -> dict[str, Any]:
    # The C order and the native little-endian types make the bytes a function of the values alone.
    array = np.ascontiguousarray(array)
    if array.dtype.hasobject:
        raise TypeError(f"{path.stem} holds Python objects; only plain arrays are stored")
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def _write_bytes(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_directory(directory: Path) -> None:
    """Make the names in `directory` durable, where the platform can open one."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _storage_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # numpy reports a short write without an errno: "123 requested and 45 written".
        if error.errno in _NO_SPACE or "requested and" in str(error):
            raise StorageFull(
                f"Cannot write {target}: {error.strerror or error}. Free space on its file system "
                "and run the same command again; the previous version is untouched."
            ) from error
        raise StorageUnwritable(
            f"Cannot write {target}: {error.strerror or error} ({error.filename or target.parent}). Let "
            "this user write there and run the same command again; the previous version is untouched."
        ) from error
