"""A flipped bit in any file that a run folder relies on ends in one line, and never in other results."""

import shutil
import zipfile

import numpy as np
import pytest
import torch

from compseg.errors import CompsegError
from compseg.files import read_json, write_checked
from compseg.inference import Segmenter, load_segmenter
from compseg.monitor import read_findings, write_findings
from compseg.run_folder import load_checkpoint, load_config, read_history
from compseg.studies.plan import Planned
from compseg.studies.record import read_record, write_record
from compseg.studies.scores import Outcome

FLIPS = 16  # of each file, evenly spaced: its bytes are much alike


def replicates(run):
    planned = Planned("c", "m", "k", 0, "", ())
    return Outcome(planned, read_record(run), run).replicates


READERS = {
    "checkpoints/last.ckpt": lambda run: load_checkpoint(run / "checkpoints/last.ckpt"),
    "checkpoints/best.ckpt": lambda run: load_checkpoint(run / "checkpoints/best.ckpt"),
    "segmenter/segmenter.json": load_segmenter,
    "segmenter/weights.safetensors": load_segmenter,
    "config.yaml": load_config,
    "environment.json": lambda run: read_json(run / "environment.json", dict, "delete it"),
    "history.csv": read_history,
    "collapse.json": read_findings,
    "metrics.json": read_record,
    "job.json": read_record,
    "bootstrap.npz": replicates,
}


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    run = shutil.copytree(trained.run, tmp_path_factory.mktemp("flipped") / "run")
    write_record(run, ["seed=0"], "finished", seconds=1.5)
    write_findings(run, read_findings(run))
    return run


@pytest.mark.parametrize("name", READERS)
def test_a_flipped_bit_is_found_or_changes_nothing(run, name):
    path, read = run / name, READERS[name]
    content, found = path.read_bytes(), 0
    sound = read(run)
    try:
        for bit in np.linspace(0, len(content) * 8 - 1, FLIPS).astype(int):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            said = ""
            try:
                other = read(run)
            except CompsegError as error:
                said = str(error)
            # Names and times in a Zip that nobody reads, and blanks in JSON, may change.
            assert (path.name in said and "\n" not in said) or same(sound, other), f"bit {bit}: {said}"
            found += bool(said)
    finally:
        path.write_bytes(content)
    assert found >= FLIPS // 2
    assert same(sound, read(run))


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor | np.ndarray):
        return bool((one == other).all())
    if isinstance(one, Segmenter):
        weights = same(dict(one.model.state_dict()), dict(other.model.state_dict()))
        return weights and (one.threshold, one.provenance) == (other.threshold, other.provenance)
    return one == other


def test_checkpoints_have_a_checksum_of_every_part(run):
    with zipfile.ZipFile(run / "checkpoints/last.ckpt") as archive:
        assert archive.testzip() is None
        assert all(entry.CRC for entry in archive.infolist() if entry.file_size > 8)


def test_run_folders_of_earlier_versions_are_read(run, tmp_path):
    old = shutil.copytree(run, tmp_path / "old", ignore=shutil.ignore_patterns(".checksums"))
    for read in READERS.values():
        assert same(read(run), read(old))
    write_checked(old / "config.yaml", (old / "config.yaml").read_text())
    assert load_config(old) == load_config(run)
