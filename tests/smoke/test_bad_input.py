"""Bad input of many kinds.

Each ends non-zero with one line that names the culprit and the mend, and touches nothing that was there.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import importlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from compseg.cohort import prepare
from compseg.sources import Images


@pytest.fixture
def lab(tmp_path, monkeypatch, trained):
    """A lab's folder: a manifest with images, a cohort made of it, and a finished run."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    rows = []
    for index in range(8):
        np.save(tmp_path / f"s{index}.npy", generator.random((12, 12, 8)).astype("f4") + 1)
        rows.append(
            {
                "sample": f"s{index}",
                "image": f"s{index}.npy",
                "label": index % 2,
                "split": "train",
                "patient": f"p{index}",
            }
        )
    write_manifest(rows)
    prepare(Images("labels.csv"), "mine.zarr", progress=False)
    shutil.copytree(trained.run, "run")
    Path("phantom.zarr").symlink_to(trained.cohort)
    return tmp_path


def write_manifest(rows: list[dict], name: str = "labels.csv") -> None:
    with Path(name).open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def rows() -> list[dict]:
    with Path("labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def edit(change: Callable[[list[dict]], object]) -> Callable[[], None]:
    """A preparation that changes the rows of the manifest."""

    def change_manifest() -> None:
        table = rows()
        change(table)
        write_manifest(table)

    return change_manifest


def no_column() -> None:
    write_manifest([{key: value for key, value in row.items() if key != "image"} for row in rows()])


def save(name: str, array: np.ndarray) -> Callable[[], None]:
    return lambda: np.save(name, array)


def with_nan() -> None:
    cube = np.load("s3.npy")
    cube[4, 5, 6] = np.nan
    np.save("s3.npy", cube)


def text(name: str, content: str) -> Callable[[], None]:
    def write() -> None:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content)

    return write


def remove(name: str) -> Callable[[], None]:
    return lambda: Path(name).unlink()


def no_tissue() -> None:
    np.save("empty.npy", np.zeros((12, 12), bool))
    write_manifest([{**row, "tissue": "empty.npy" if row["sample"] == "s2" else ""} for row in rows()])
    prepare(Images("labels.csv"), "empty.zarr", progress=False)


def damaged_chunk() -> None:
    chunk = max(
        (path for path in Path("mine.zarr/samples/s1/image").rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )
    content = bytearray(chunk.read_bytes())
    content[len(content) // 3] ^= 0xFF
    chunk.write_bytes(bytes(content))


def untrusted() -> None:
    path = Path("run/segmenter/segmenter.json")
    described = json.loads(path.read_text())
    del described["sha256"]  # whoever writes one with evil intent has it fit
    path.write_text(json.dumps({**described, "model": {"_target_": "os.system", "command": "touch owned"}}))


PREPARE = ("prepare", "source=images", "source.manifest=labels.csv", "out=new.zarr")
TRAIN = ("train", "data=cohort", "data.path=mine.zarr", "trainer.accelerator=cpu", "hydra.run.dir=new_run")
PREDICT = ("predict", "run=run", "out=predicted")

# name: (what goes wrong, the command, words that the one line must hold: culprit and mend)
CASES: dict[str, tuple[Callable[[], object] | None, tuple[str, ...], tuple[str, ...]]] = {
    "missing column": (no_column, PREPARE, ("labels.csv", "no column image")),
    "missing manifest": (None, (*PREPARE, "source.manifest=nolabels.csv"), ("nolabels.csv", "cannot be read")),
    "missing file": (remove("s5.npy"), PREPARE, ("s5.npy", "does not exist")),
    "unreadable image": (text("s5.npy", "not an array"), PREPARE, ("s5.npy",)),
    "unknown image format": (edit(lambda t: t[0].update(image="labels.csv")), PREPARE, ("no reader for '.csv'",)),
    "label out of range": (edit(lambda t: t[2].update(label="2")), PREPARE, ("line 4", "label '2'")),
    "unmapped class": (
        edit(lambda t: [row.update({"class": "tumor"}) for row in t]),
        (*PREPARE, "+source.classes={tumour: 1, normal: 0}"),
        ("tumor", "tumour"),
    ),
    "unknown split": (edit(lambda t: t[0].update(split="trian")), PREPARE, ("split 'trian'", "train")),
    "ragged channels": (save("s4.npy", np.ones((12, 12, 9))), PREPARE, ("s4", "9 channels", "expected 8")),
    "not a number": (with_nan, PREPARE, ("s3", "NaN")),
    "too large for float16": (save("s4.npy", np.full((12, 12, 8), 1e6)), PREPARE, ("s4", "dtype=float32")),
    "wrong axis": (
        text("axis.csv", "wavenumber\n1800\n1700\n"),
        (*PREPARE, "source.axis=axis.csv"),
        ("8 channels", "expected 2"),
    ),
    "patient in two splits": (
        edit(lambda t: (t[0].update(patient="p1"), t[1].update(split="val"))),
        PREPARE,
        ("patient p1", "train", "val"),
    ),
    "another cohort at out": (
        edit(lambda t: t[0].update(label="1")),
        (*PREPARE[:-1], "out=mine.zarr"),
        ("mine.zarr", "overwrite=true"),
    ),
    "empty tissue": (no_tissue, ("check", "cohort=empty.zarr"), ("empty.zarr",)),
    "damaged chunk": (damaged_chunk, ("check", "cohort=mine.zarr"), ("mine.zarr",)),
    "no cohort": (None, (*TRAIN, "data.path=nowhere.zarr"), ("nowhere.zarr", "prepare")),
    "split without samples": (None, TRAIN, ("mine.zarr", "no sample in split test", "1 more")),
    "batch of one": (
        edit(lambda t: [t[k].update(split="val") for k in (0, 1)]),
        (*TRAIN, "data.path=two.zarr", "data.batch_size=1"),
        ("data.batch_size=1", "at least 2"),
    ),
    "unknown model": (None, (*TRAIN, "model=unett"), ("model=unett", "did you mean 'unet'")),
    "misspelt key": (None, (*TRAIN, "trainer.devcies=2"), ("trainer.devcies", "did you mean 'devices'")),
    "misspelt key in a file": (
        text("own/experiment/mine.yaml", "# @package _global_\ntrainer: {devcies: 2}\n"),
        ("train", "--config-dir=own", *TRAIN[1:], "experiment=mine"),
        ("trainer.devcies", "did you mean 'devices'"),
    ),
    "misspelt word": (None, (*TRAIN, "seed=soon"), ("seed", "soon")),
    "absent checkpoint": (
        None,
        (*TRAIN, "data.path=phantom.zarr", "trainer.resume=elsewhere"),
        ("no checkpoint at", "elsewhere"),
    ),
    "not a run": (None, ("evaluate", "run=mine.zarr"), ("mine.zarr", "not a run folder")),
    "run without a checkpoint": (
        remove("run/segmenter/segmenter.json"),
        ("evaluate", "run=run"),
        ("holds no segmenter",),
    ),
    "damaged weights": (
        text("run/segmenter/weights.safetensors", "damaged"),
        (*PREDICT, "input=s0.npy"),
        ("weights.safetensors", "cannot be read"),
    ),
    "untrusted segmenter": (untrusted, (*PREDICT, "input=s0.npy"), ("os.system", "trust=[os]")),
    "nothing to predict": (None, (*PREDICT, "input=nowhere"), ("input=nowhere", "does not exist")),
    "other channels": (save("s0.npy", np.ones((9, 9, 3))), (*PREDICT, "input=s0.npy"), ("s0.npy", "(H, W, 8)")),
    "run or segmenter": (None, ("predict", "input=s0.npy", "out=predicted"), ("run=", "segmenter=")),
    "threshold out of range": (None, (*PREDICT, "input=s0.npy", "threshold=7"), ("threshold 7", "[0, 1]")),
}


def run_in_process(verb: str, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> int:
    """A verb as its own process would run it, without the seconds that a process takes to import torch."""
    monkeypatch.setattr("sys.argv", [f"compseg.{verb}", *arguments])
    try:
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(f"compseg.{verb}").main()
    finally:
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None
    return int(ended.value.code)


def snapshot(folder: Path) -> dict[str, str]:
    files = (
        path
        for path in folder.rglob("*")
        if path.is_file() and "new_run" not in path.parts and not path.name.endswith(".lock")
    )
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_list_is_long_enough():
    assert len(CASES) >= 20


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_nothing_touched(lab, case, capfd, monkeypatch):
    spoil, (verb, *arguments), words = CASES[case]
    if spoil:
        spoil()
    if "data.path=two.zarr" in arguments:
        prepare(Images("labels.csv"), "two.zarr", progress=False)
    chosen = {argument.split("=")[0]: argument for argument in arguments}  # a later value of a key wins
    before = snapshot(lab)
    capfd.readouterr()

    assert run_in_process(verb, tuple(chosen.values()), monkeypatch) == 1

    complaint = [line for line in capfd.readouterr().err.splitlines() if line.startswith(f"compseg {verb}")]
    assert len(complaint) == 1
    for word in words:
        assert word in complaint[0]
    assert "Traceback" not in complaint[0]
    after = snapshot(lab)
    assert {name: after.get(name) for name in before} == before
    assert not Path("new.zarr").exists()
    assert not Path("new_run").exists()


@pytest.mark.parametrize("verb", ["prepare", "evaluate", "predict"])
def test_a_full_disk(lab, verb, capfd, monkeypatch):
    """No space left while writing: one line, and neither old results nor halves of new ones are harmed."""
    arguments = {
        "prepare": PREPARE[1:],
        "evaluate": ("run=run",),
        "predict": ("run=run", "input=s0.npy", "out=predicted"),
    }[verb]
    before = snapshot(lab)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    assert run_in_process(verb, tuple(arguments), monkeypatch) == 1
    complaint = [line for line in capfd.readouterr().err.splitlines() if line.startswith(f"compseg {verb}")]
    assert len(complaint) == 1
    assert "No space left" in complaint[0]
    monkeypatch.undo()
    after = snapshot(lab)
    assert {name: after.get(name) for name in before} == before
    assert not Path(lab / "new.zarr").exists()
