"""The verbs as a user runs them, in their own folder."""

import sys
from pathlib import Path

import numpy as np
import pytest

from compseg import check, prepare


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """A call of a verb from inside `tmp_path`; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(verb, *overrides):
        monkeypatch.setattr(sys, "argv", [verb.__name__, *overrides])
        try:
            verb.main()
            code = 0
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def manifest(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["sample,image,class,split"]
    for split in ("train", "val", "test"):
        for word in ("T", "N", "NAT"):
            name = f"{split}_{word}"
            np.save(tmp_path / f"{name}.npy", rng.random((8, 9, 2)).astype(np.float32))
            rows.append(f"{name},{name}.npy,{word},{split}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "axis.csv").write_text("wavenumber_per_cm\n1800\n950\n")


ARGUMENTS = ("source=images", "source.manifest=labels.csv", "source.classes={T: 1, N: 0, NAT: null}", "out=data/c.zarr")


@pytest.mark.usefixtures("manifest")
def test_prepare_check_damage_check(run, tmp_path):
    before = {path.name for path in tmp_path.iterdir()}
    code, out, _ = run(prepare, *ARGUMENTS, "source.axis=axis.csv")
    assert code == 0
    assert "data/c.zarr: 6 samples, channels: 2 from 1800 to 950 cm-1, float16" in out
    code, out, _ = run(check, "cohort=data/c.zarr")
    assert (code, out) == (0, "data/c.zarr: sound, 6 samples\n")
    assert {path.name for path in tmp_path.iterdir()} == before | {"data"}  # nothing else is left behind

    block = next(Path("data/c.zarr/samples/val_T/image/c").rglob("0/0/0"))
    block.write_bytes(block.read_bytes()[:-1])
    code, out, err = run(check, "cohort=data/c.zarr")
    assert code == 1
    assert "val_T" in out
    assert err.splitlines()[-1] == "compseg check: data/c.zarr: 1 problem; the table says how to fix each"


@pytest.mark.usefixtures("manifest")
def test_faults_of_the_user_are_one_line(run):
    for overrides, words in (
        (ARGUMENTS[:2], "source.classes="),
        ((*ARGUMENTS, "source.axes=a.csv"), "axis"),
        ((*ARGUMENTS, "dtype=float8"), "expected float16 or float32"),
        (("source.manifest=none.csv", "out=c"), "none.csv: cannot be read"),
    ):
        code, _, err = run(prepare, *overrides)
        assert code == 1
        assert words in err.splitlines()[-1]
        assert "Traceback" not in err
    code, _, err = run(check, "cohort=none.zarr")
    assert code == 1
    assert "none.zarr: no such cohort" in err
