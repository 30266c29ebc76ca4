"""The doctor: a line a check, with the fix; it fails where something fails, and not where something is absent."""

import sys

import pytest

import compseg
from compseg import doctor
from compseg.api import FAIL, PASS, WARN, Finding
from running import run_here


@pytest.fixture
def only(monkeypatch):
    """Leaves some of the checks."""

    def keep(**looks):
        monkeypatch.setattr(doctor, "LOOKS", looks)

    return keep


def test_every_check_says_what_there_is(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_here("doctor") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines[:-1] if line[:4] not in (PASS, WARN)] == []
    for subject in ("python", "packages", "extras", "torch", "threads", "memory", "disk", "store", "codecs", "W&B"):
        assert any(line[6:].startswith(subject) for line in lines), subject
    assert lines[-1].startswith(f"{len(lines) - 1} checks")
    assert max(len(line) for line in lines) < 150
    assert list(tmp_path.iterdir()) == []


def test_it_fails_only_where_something_fails(only, capsys):
    only(one=lambda: iter([Finding(PASS, "one", "well"), Finding(WARN, "two", "so so", "do this")]))
    assert run_here("doctor") == 0
    lines = ["PASS  one        well", "WARN  two        so so; do this", "2 checks, 1 with a warning"]
    assert capsys.readouterr().out.splitlines() == lines

    def broken():
        yield Finding(PASS, "one", "well")
        raise OSError("gone")

    only(broken=broken)
    assert run_here("doctor") == 1
    said = capsys.readouterr()
    assert "FAIL  broken     gone; install what it names again" in said.out
    assert said.err == "compseg doctor: 1 of 2 checks failed; the lines with FAIL say how to fix each\n"


@pytest.mark.parametrize(
    ("version", "level"), [((3, 11, 0), PASS), ((3, 13, 2), PASS), ((3, 14, 0), WARN), ((3, 10, 9), WARN)]
)
def test_pythons(monkeypatch, version, level):
    monkeypatch.setattr(sys, "version_info", version)
    (found,) = doctor.python()
    assert found.level == level
    assert ("3.11 to 3.13" in found.fix) == (level == WARN)


def test_a_package_that_is_too_old_fails_and_an_extra_that_is_absent_does_not(monkeypatch):
    from importlib import metadata

    needed = ["numpy>=99", "torch>=2", "nowhere>=1; extra == 'remote'", "pytest; extra == 'dev'"]
    monkeypatch.setattr(metadata, "requires", lambda *_: needed)
    assert doctor.lacking() == {
        "": [f"numpy>=99 ({metadata.version('numpy')})"],
        "remote": ["nowhere>=1 (not installed)"],
    }
    packages, extras = doctor.packages()
    assert (packages.level, packages.fix) == (FAIL, "pip install --upgrade compseg")
    assert extras.level == PASS
    assert "compseg[remote]" in extras.fix


@pytest.mark.parametrize(("free", "level"), [(20, PASS), (2, WARN), (0.5, FAIL)])
def test_memory_and_disk(monkeypatch, free, level):
    monkeypatch.setattr("compseg.memory.free_host_memory", lambda: free * doctor.GIB)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda *_: type("Usage", (), {"free": free * doctor.GIB}))
    for look in (doctor.memory, doctor.disk):
        (found,) = look()
        assert (found.level, bool(found.fix)) == (level, level != PASS)


def test_a_codec_that_is_missing_is_named(monkeypatch):
    import tifffile

    write = tifffile.imwrite

    def without_zstd(file, pixels, compression):
        if compression == "zstd":
            raise ValueError("no such codec")
        write(file, pixels, compression=compression)

    monkeypatch.setattr(tifffile, "imwrite", without_zstd)
    (found,) = doctor.codecs()
    assert (found.level, found.found) == (FAIL, "TIFF with zstd cannot be read")


@pytest.mark.slow
def test_what_training_on_a_cohort_would_take(trained, only, capsys):
    only()
    keys = "{model.width: 8, data.batch_size: 6, trainer.accelerator: cpu}"
    assert run_here("doctor", f"cohort={trained.cohort}", f"overrides={keys}") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "samples to learn from" in lines[0]
    assert "GiB in memory" in lines[1]
    assert lines[2].startswith("PASS  trial      about ")
    assert " s an epoch of " in lines[2]

    assert run_here("doctor", f"cohort={trained.cohort}", "overrides={optimizer.lrr: 1}") == 1
    assert "FAIL  trial      optimizer.lrr" in capsys.readouterr().out


def test_the_verb_from_python_gives_what_it_found(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    found = compseg.doctor()
    assert {"python", "torch", "codecs"} <= {each.subject for each in found}
    assert all(str(each) in capfd.readouterr().out for each in found[:1])
