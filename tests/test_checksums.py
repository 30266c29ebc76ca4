"""A file whose bits have changed is refused; one that was written whole is read, whenever the process is killed."""

import json
import shutil

import pytest

from compseg import files
from compseg.errors import CompsegError
from compseg.files import checksum_beside, read_checked, write_checked
from running import Killed


def flipped(content, bit):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_flipped_bit_is_found(tmp_path):
    path = tmp_path / "metrics.json"
    write_checked(path, json.dumps({"test/pixel_ap": 0.75}))
    content = path.read_bytes()
    assert read_checked(path) == content
    for bit in range(len(content) * 8):
        path.write_bytes(flipped(content, bit))
        with pytest.raises(CompsegError, match=r"metrics\.json: damaged or changed since .*delete .*checksums/metrics"):
            read_checked(path)


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"0" * 64])
def test_a_damaged_checksum_is_named_and_may_be_deleted(tmp_path, damage):
    path = tmp_path / "history.csv"
    write_checked(path, "epoch\n0\n")
    checksum_beside(path).write_bytes(damage)
    with pytest.raises(CompsegError, match=r"history\.csv: damaged or changed"):
        read_checked(path)
    checksum_beside(path).unlink()
    assert read_checked(path) == b"epoch\n0\n"


def test_older_files_without_a_checksum_are_read(tmp_path):
    (tmp_path / "old.json").write_text("{}")
    assert read_checked(tmp_path / "old.json") == b"{}"
    with pytest.raises(FileNotFoundError):
        read_checked(tmp_path / "absent.json")


def test_a_kill_at_any_write_leaves_a_sound_file(tmp_path, monkeypatch):
    path, whole = tmp_path / "history.csv", files.atomic_bytes
    write_checked(path, "0")
    for number in range(1, 6):
        for killed_at in (0, 1):  # before the checksum is written, and between the two; again and again
            calls = []

            def killed(target, content, at=killed_at, calls=calls):
                if len(calls) == at:
                    raise Killed
                calls.append(target)
                whole(target, content)

            monkeypatch.setattr(files, "atomic_bytes", killed)
            with pytest.raises(Killed):
                write_checked(path, f"{number} and {killed_at}")
            assert read_checked(path) == str(number - 1).encode()
        monkeypatch.setattr(files, "atomic_bytes", whole)
        write_checked(path, str(number))
        assert read_checked(path) == str(number).encode()


def test_what_is_damaged_does_not_become_sound_by_the_next_write(tmp_path):
    path = tmp_path / "config.yaml"
    write_checked(path, "seed: 0")
    path.write_bytes(b"seed: 1")
    write_checked(path, "seed: 2")
    path.write_bytes(b"seed: 1")
    with pytest.raises(CompsegError):
        read_checked(path)


def test_a_copied_folder_is_checked_too(tmp_path):
    write_checked(tmp_path / "run/config.yaml", "seed: 0")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    assert read_checked(tmp_path / "copy/config.yaml") == b"seed: 0"
    (tmp_path / "copy/config.yaml").write_text("seed: 1")
    with pytest.raises(CompsegError):
        read_checked(tmp_path / "copy/config.yaml")
