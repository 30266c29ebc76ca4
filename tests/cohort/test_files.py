import csv
import io
import json
import os

import numpy as np
import pytest
import torch

from compseg.files import atomic_bytes, atomic_json, atomic_npy, atomic_open, atomic_text, atomic_torch, csv_text


def test_each_writes_what_its_reader_reads(tmp_path):
    folder = tmp_path / "new" / "folder"
    atomic_bytes(folder / "b", b"\x00\x01")
    atomic_text(folder / "t", "ß = 0.1\n")
    atomic_json(folder / "j", {"ß": [1, None]})
    atomic_npy(folder / "n", np.arange(3))
    atomic_torch(folder / "w", {"weight": torch.arange(3.0)})
    assert (folder / "b").read_bytes() == b"\x00\x01"
    assert (folder / "t").read_text(encoding="utf-8") == "ß = 0.1\n"
    assert json.loads((folder / "j").read_text(encoding="utf-8")) == {"ß": [1, None]}
    np.testing.assert_array_equal(np.load(folder / "n"), [0, 1, 2])
    assert torch.equal(torch.load(folder / "w", weights_only=True)["weight"], torch.arange(3.0))
    assert sorted(path.name for path in folder.iterdir()) == ["b", "j", "n", "t", "w"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    atomic_text(tmp_path / "f", "old")

    def half():
        with atomic_open(tmp_path / "f") as file:
            file.write(b"ne")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        half()
    assert (tmp_path / "f").read_text() == "old"
    assert os.listdir(tmp_path) == ["f"]  # noqa: PTH208


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        atomic_text(tmp_path / "f", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o644


def test_a_table_comes_back_as_it_was():
    rows = [["a, b", 'say "c"'], ["", "1.5"]]
    text = csv_text(["first", "second"], rows)
    assert "\r" not in text
    assert list(csv.reader(io.StringIO(text))) == [["first", "second"], *rows]
