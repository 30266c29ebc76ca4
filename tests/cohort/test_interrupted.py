"""A preparation that is stopped at any moment leaves no cohort, and makes the same one when run again."""

import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zarr
from memory_source import MemorySource

from compseg.cohort import Cohort, find_problems, prepare
from compseg.errors import CompsegError
from running import HANGS

HERE = Path(__file__).parent
PREPARE = """
import os, signal, sys, time
from pathlib import Path
from memory_source import MemorySource
from compseg.cohort import prepare, writer

out = Path(sys.argv[1])
"""


def python(script, *arguments, **options):
    paths = [str(HERE), str(HERE.parents[1] / "src"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", PREPARE + script, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, **options)


def assert_same(path, other):
    """Attributes and all arrays are equal."""
    ours, theirs = zarr.open_group(path, mode="r"), zarr.open_group(other, mode="r")
    assert ours.attrs.asdict() == theirs.attrs.asdict()
    arrays, others = (dict(group.members(max_depth=None)) for group in (ours, theirs))
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        if isinstance(array, zarr.Array):
            np.testing.assert_array_equal(array[...], others[name][...])
        else:
            assert array.attrs.asdict() == others[name].attrs.asdict()


def stop_at(name):
    def before(info):
        if info.name == name:
            raise KeyboardInterrupt

    return MemorySource(before=before)


@pytest.mark.parametrize("stop", ["s00", "s03", "s05"])
def test_continues_where_it_stopped(tmp_path, stop):
    path = tmp_path / "c"
    with pytest.raises(KeyboardInterrupt):
        prepare(stop_at(stop), path, progress=False)
    with pytest.raises(CompsegError, match=r"was interrupted, c\.partial is there; run the same prepare again"):
        Cohort.open(path)
    (problem,) = find_problems(path)
    assert problem.file == "c.partial"
    read = []
    prepare(MemorySource(before=lambda info: read.append(info.name)), path, progress=False)
    assert read == [f"s{i:02d}" for i in range(int(stop[1:]), 6)]
    assert not (tmp_path / "c.partial").exists()
    prepare(MemorySource(), tmp_path / "unbroken", progress=False)
    assert_same(path, tmp_path / "unbroken")


@pytest.mark.parametrize(("seed", "dtype"), [(1, "float16"), (0, "float32")])
def test_other_samples_or_settings_start_again_with_a_message(tmp_path, capsys, seed, dtype):
    path = tmp_path / "c"
    with pytest.raises(KeyboardInterrupt):
        prepare(stop_at("s03"), path, progress=False)
    read = []
    cohort = prepare(MemorySource(seed=seed, before=lambda info: read.append(info.name)), path, dtype=dtype)
    assert "starting again" in " ".join(capsys.readouterr().err.split())
    assert len(read) == 6
    assert cohort.dtype == dtype


def test_finished_samples_whose_bytes_changed_are_written_again(tmp_path):
    path = tmp_path / "c"
    with pytest.raises(KeyboardInterrupt):
        prepare(stop_at("s04"), path, progress=False)
    (block,) = (path.with_name("c.partial") / "samples/s01/image/c").rglob("0/0/0")
    block.write_bytes(block.read_bytes()[:-9])
    for lost in (path.with_name("c.partial") / "samples/s02/truth").rglob("0"):
        if lost.is_file():
            lost.unlink()
    (path.with_name("c.partial") / f"zarr.{'0' * 32}.partial").write_bytes(b"what Zarr was writing")
    read = []
    prepare(MemorySource(before=lambda info: read.append(info.name)), path, progress=False)
    assert read == ["s01", "s04", "s05"]
    assert list(path.rglob("*.partial")) == []
    assert find_problems(path) == []


KILLS = {
    "while reading": "MemorySource(before=lambda info: info.name == 's03' and os.kill(os.getpid(), signal.SIGKILL))",
    "between two arrays": "MemorySource()",
}


@pytest.mark.parametrize("moment", KILLS)
def test_killed(tmp_path, moment):
    path = tmp_path / "c"
    script = f"source = {KILLS[moment]}\n"
    if moment == "between two arrays":
        script += """
write = writer.write_array
def write_and_die(root, path, array, chunk):
    write(root, path, array, chunk)
    if path == "samples/s03/tissue":
        os.kill(os.getpid(), signal.SIGKILL)
writer.write_array = write_and_die
"""
    process = python(script + "prepare(source, out, progress=False)", path)
    _, errors = process.communicate(timeout=HANGS)
    assert process.returncode == -signal.SIGKILL, errors
    assert not path.exists()
    read = []
    prepare(MemorySource(before=lambda info: read.append(info.name)), path, progress=False)
    assert read == ["s03", "s04", "s05"]
    prepare(MemorySource(), tmp_path / "unbroken", progress=False)
    assert_same(path, tmp_path / "unbroken")


def test_two_processes_at_once_share_the_work_of_one(tmp_path):
    script = """
rank = sys.argv[2]
(out.parent / f"here{rank}").touch()
while not all((out.parent / f"here{other}").exists() for other in "01"):
    time.sleep(0.01)
def before(info):
    with (out.parent / "reads").open("a") as file:
        file.write(info.name + "\\n")
    time.sleep(0.05)
cohort = prepare(MemorySource(before=before), out, progress=False)
assert len(cohort.infos) == 6
"""
    processes = [python(script, tmp_path / "c", rank) for rank in (0, 1)]
    for process in processes:
        _, errors = process.communicate(timeout=HANGS)
        assert process.returncode == 0, errors
    assert (tmp_path / "reads").read_text().split() == [f"s{i:02d}" for i in range(6)]
    assert find_problems(tmp_path / "c") == []


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path):
    size = (64, 64, 16)
    one = np.prod(size) * 4

    def peak(count):
        tracemalloc.start()
        prepare(MemorySource(count, size), tmp_path / str(count), progress=False)
        find_problems(tmp_path / str(count))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(24) < peak(6) + 2 * one
