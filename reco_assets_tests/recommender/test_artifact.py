import errno
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reco_assets.errors import CorruptArtifact, MissingUpstream, StorageFull, StorageUnwritable
from reco_assets.recommender.artifact import read_artifact, write_artifact

ARRAYS = {"ids": np.arange(12, dtype=np.int32).reshape(3, 4), "empty": np.empty(0), "mask": np.array([True])}
REDO = "reco run --partition 2026-10-01"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_artifact(tmp_path / "model", "thing", ARRAYS, {"k": 3, "rate": 0.1})


@pytest.mark.parametrize("mmap", [True, False])
def test_what_was_written_is_read(directory: Path, mmap: bool) -> None:
    arrays, metadata = read_artifact(directory, "thing", redo=REDO, mmap=mmap)
    assert metadata == {"k": 3, "rate": 0.1}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
        assert not arrays[name].flags.writeable
    assert isinstance(arrays["ids"].base, np.memmap) == mmap


def test_the_same_content_gives_the_same_bytes(tmp_path: Path, directory: Path) -> None:
    reversed_order = dict(reversed(ARRAYS.items()))
    other = write_artifact(tmp_path / "other", "thing", reversed_order, {"rate": 0.1, "k": 3})
    for path in directory.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes()


def test_writing_again_replaces_all_and_leaves_nothing_beside(directory: Path) -> None:
    write_artifact(directory, "thing", {"ids": np.zeros(2)}, {})
    assert sorted(path.name for path in directory.iterdir()) == ["ids.npy", "manifest.json"]
    assert [path.name for path in directory.parent.iterdir()] == ["model"]


def test_debris_of_a_crashed_writer_is_removed_by_the_next(directory: Path) -> None:
    crashed = directory.parent / ".model.tmp"
    crashed.mkdir()
    (crashed / "half.npy").write_bytes(b"x")
    write_artifact(directory, "thing", ARRAYS, {})
    assert not crashed.exists()


def test_a_missing_artifact_names_the_path_and_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingUpstream, match=rf"nowhere.*{REDO}"):
        read_artifact(tmp_path / "nowhere", "thing", redo=REDO)


def _truncate(directory: Path) -> None:
    os.truncate(directory / "ids.npy", 100)


def _flip_a_bit(directory: Path) -> None:
    content = bytearray((directory / "ids.npy").read_bytes())
    content[-1] ^= 1
    (directory / "ids.npy").write_bytes(content)


def _remove(directory: Path) -> None:
    (directory / "ids.npy").unlink()


def _remove_manifest(directory: Path) -> None:
    (directory / "manifest.json").unlink()


def _cut_manifest(directory: Path) -> None:
    os.truncate(directory / "manifest.json", 40)


def _edit(directory: Path, **changes: Any) -> None:
    path = directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, r"ids\.npy has 100 bytes instead of"),
        (_flip_a_bit, r"ids\.npy does not match its checksum"),
        (_remove, r"ids\.npy is missing"),
        (_remove_manifest, r"manifest\.json is missing"),
        (_cut_manifest, r"manifest\.json is not a readable manifest"),
        (lambda d: (d / "manifest.json").write_text("[]"), r"not a readable manifest"),
        (lambda d: _edit(d, format_version=99), r"format version 99, this code reads 1"),
        (lambda d: _edit(d, kind="other"), r"describes a 'other', not a 'thing'"),
    ],
)
def test_damage_is_named_with_what_to_do(directory: Path, damage: Any, message: str) -> None:
    damage(directory)
    with pytest.raises(CorruptArtifact, match=message) as caught:
        read_artifact(directory, "thing", redo=REDO)
    assert REDO in str(caught.value)


def test_without_checksums_what_was_cut_off_is_noticed_and_what_was_altered_is_not(directory: Path) -> None:
    _flip_a_bit(directory)
    arrays, _ = read_artifact(directory, "thing", redo=REDO, verify=False)
    assert (arrays["ids"] != ARRAYS["ids"]).sum() == 1
    _truncate(directory)
    with pytest.raises(CorruptArtifact, match="has 100 bytes instead of"):
        read_artifact(directory, "thing", redo=REDO, verify=False)


@pytest.mark.parametrize("short_write", [False, True])
def test_a_full_disk_leaves_the_old_artifact_and_no_debris(
    directory: Path, monkeypatch: pytest.MonkeyPatch, short_write: bool
) -> None:
    def full(*_: Any, **__: Any) -> None:
        if short_write:
            raise OSError("12 requested and 0 written")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(StorageFull, match="the previous version is untouched"):
        write_artifact(directory, "thing", {"ids": np.zeros(5)}, {})
    monkeypatch.undo()
    assert [path.name for path in directory.parent.iterdir()] == ["model"]
    assert read_artifact(directory, "thing", redo=REDO)[1] == {"k": 3, "rate": 0.1}


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_refused_write_tells_path_and_reason_and_does_not_speak_of_space(
    directory: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(np, "save", refused)
    with pytest.raises(StorageUnwritable, match=rf"{directory}: {os.strerror(code)}") as caught:
        write_artifact(directory, "thing", {"ids": np.zeros(5)}, {})
    assert "pace" not in str(caught.value)
    assert [path.name for path in directory.parent.iterdir()] == ["model"]


def test_a_parent_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageUnwritable, match="Not a directory"):
        write_artifact(tmp_path / "file" / "model", "thing", {"ids": np.zeros(5)}, {})


def test_a_crash_between_the_two_renames_restores_the_old_artifact(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.name.endswith(".tmp"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_artifact(directory, "thing", {"ids": np.zeros(5)}, {})
    assert read_artifact(directory, "thing", redo=REDO)[1] == {"k": 3, "rate": 0.1}


def test_python_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="only plain arrays"):
        write_artifact(tmp_path / "a", "thing", {"x": np.array([{}])}, {})
    assert not list(tmp_path.iterdir())


def test_what_is_replaced_while_it_is_read_is_read_whole(tmp_path: Path) -> None:
    target, stop = tmp_path / "artifact", threading.Event()

    def write(version: int) -> None:
        arrays = {f"part{i}": np.full(1000 + version % 7, version) for i in range(6)}
        write_artifact(target, "numbers", arrays, {"version": version})

    def rewrite() -> None:
        version = 1
        while not stop.is_set():
            write(version)
            version += 1
            time.sleep(0.05)

    write(0)
    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        for verify in (False, True) * 60:
            arrays, metadata = read_artifact(target, "numbers", redo="again", verify=verify)
            assert {int(value) for array in arrays.values() for value in array} == {metadata["version"]}
    finally:
        stop.set()
        writer.join()
