import csv
import io
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from compseg.files import (
    atomic_bytes,
    atomic_json,
    atomic_npy,
    atomic_open,
    atomic_text,
    atomic_torch,
    csv_text,
    from_cell,
    remove_partials,
)


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


def test_an_error_names_the_file_that_was_wanted(tmp_path):
    with pytest.raises(OSError, match="too long") as raised:
        atomic_text(tmp_path / ("f" * 230), "x")
    assert raised.value.filename == str(tmp_path / ("f" * 230))


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


FORMULAS = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''-a", '=HYPERLINK("x","y")']
TEXTS = ["", "a=1", "'a", "'", "1 = 1", "日本語", "a, b", 'say "c"']


@pytest.mark.parametrize("text", [*FORMULAS, *TEXTS])
def test_no_cell_is_a_formula_and_each_comes_back(text):
    written = csv_text(["name"], [[text]])
    cell = next(csv.reader(io.StringIO(written.partition("\n")[2], newline="")))[0]
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert (cell != text) == (text in FORMULAS)
    assert from_cell(cell) == text


def test_numbers_stay_numbers():
    row = [-1, -0.5, "-1e-3", "+2", "-inf", math.nan, True]
    assert csv_text(row) == "-1,-0.5,-1e-3,+2,-inf,nan,True\n"


def test_a_name_that_is_no_unicode_is_written_with_an_escape(tmp_path):
    atomic_json(tmp_path / "j", {"name": "a\udcff"})
    assert json.loads((tmp_path / "j").read_text(encoding="utf-8")) == {"name": "a\udcff"}
    atomic_text(tmp_path / "t", csv_text(["a\udcff"]))
    assert (tmp_path / "t").read_text(encoding="utf-8") == "a\\udcff\n"


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_stays(tmp_path):
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, sys; from compseg.files import atomic_open\n"
            "with atomic_open(sys.argv[1]) as file: os.kill(os.getpid(), 9)",
            tmp_path / "below" / "last.ckpt",
        ],
        check=False,
    )
    assert killed.returncode == -9
    (left,) = (tmp_path / "below").iterdir()
    others = [tmp_path / name for name in ("mine.partial", ".mine.partial", "below/last.ckpt")]
    for other in others:
        other.write_bytes(b"")
    with atomic_open(tmp_path / "f") as file:
        file.write(b"whole")
        remove_partials(tmp_path)
    assert not left.exists()
    assert all(other.exists() for other in others)
    assert (tmp_path / "f").read_bytes() == b"whole"
