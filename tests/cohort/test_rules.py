"""The list of rules: each is broken by a cohort made for it, and said alike by check, prepare and train."""

import json
import shutil
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import zarr
from memory_source import MemorySource

from compseg.cohort import Cohort, find_problems, prepare, refuse_fatal
from compseg.cohort.layout import checksum
from compseg.cohort.problems import RULES
from compseg.errors import CompsegError
from running import run_here, tiny

SPLITS = ["train", "train", "val", "val", "test", "test"]
NAMES = {rule.name: rule for rule in chain(*RULES.values())}


def source(change=lambda _, arrays: arrays, **infos):
    made = MemorySource(size=(20, 20, 3), change=change)
    for key, values in {"split": SPLITS, **infos}.items():
        made.samples = [replace(info, **{key: value}) for info, value in zip(made.samples, values, strict=True)]
    return made


def arrays_of(names, **changes):
    return lambda info, a: replace(a, **{k: f(a) for k, f in changes.items()}) if info.name in names else a


def edited(path, edit):
    root = json.loads((path / "zarr.json").read_text())
    edit(root["attributes"]["compseg"]["samples"])
    (path / "zarr.json").write_text(json.dumps(root))


def with_nan(path):
    """As another program would write them, which has no objection to such values."""
    array = zarr.open_group(path, mode="a")["samples/s01/image"]
    array[3, 4, 1] = np.nan
    edited(path, lambda rows: rows[1]["checksums"].update(image=checksum(array[...])))


def zero(a):
    return a.image * 0


# By the rule that is broken: the source, or what is done to a sound cohort, and the line that is said.
# What `prepare` refuses, or what happens to a cohort later, cannot come from a source.
CASES = {
    "a name that no file can have": (
        lambda path: edited(path, lambda rows: rows[5].update(name="a/../b")),
        "a/../b: no name for a file; what is written for it is called ",
    ),
    "two samples of one name": (
        lambda path: edited(path, lambda rows: rows.append(rows[0])),
        "s00: has the name of another sample, s00; rename one, prepare the cohort again",
    ),
    "a patient in two splits": (
        lambda path: edited(path, lambda rows: rows[4].update(patient="p0")),
        "s04: patient p0 is in test here and in train with sample s00; give all samples of a patient one split",
    ),
    "a group in two spellings": (
        source(group=["A1", "a-01", "B", "B", "C", "C"]),
        "s01: group a-01 looks like A1 of sample s00; write one group one way; tell two by more than case and signs",
    ),
    "an empty split": (
        source(split=["train"] * 6),
        "no sample in split val; give splits in the manifest or in splits.val",
    ),
    "a split without one class": (
        source(split=["train", "val", "train", "val", "test", "test"], patient=[""] * 6),
        "split train has no disease sample; change the splits in the manifest or in splits.*",
    ),
    "damaged, changed or of another shape": (
        lambda path: shutil.rmtree(path / "samples/s01/tissue"),
        "s01: cannot be read: ",
    ),
    "values that are not finite": (
        with_nan,
        "s01: 1 values are NaN or infinite; set them to 0 and mask their pixels out of the tissue",
    ),
    "an image of one value": (
        source(arrays_of(["s00"], image=zero)),
        "s00: all values of its image are the same; give another image, or drop the sample",
    ),
    "no tissue": (
        source(arrays_of(["s00"], tissue=lambda a: a.tissue & False)),
        "s00: its tissue mask is empty; choose another tissue rule, give a mask, or drop the sample",
    ),
    "truth against the label": (
        source(arrays_of(["s01"], truth=lambda a: a.tissue & False)),
        "s01: disease, but its truth is empty; correct its label, or drop its truth",
    ),
    "nothing to learn from": (
        source(arrays_of(["s00", "s01"], image=zero)),
        "every image of split train is of one value throughout; look at how the images were exported",
    ),
    "identical pixels": (
        source(arrays_of(["s01", "s04"], image=lambda a: a.image * 0 + 1)),
        "s01: identical pixels: s01 (train), s04 (test); keep one of them",
    ),
}


def broken(name, path):
    made, line = CASES[name]
    prepare(made if isinstance(made, MemorySource) else source(), path)
    if not isinstance(made, MemorySource):
        made(path)
    return line


def test_every_rule_has_a_case():
    """Whoever adds a rule shows here what it says."""
    assert set(CASES) == set(NAMES)


@pytest.mark.parametrize("name", CASES)
def test_check_prepare_and_training_say_the_same(tmp_path, name, capsys):
    path = tmp_path / "c"
    line = broken(name, path)
    told = capsys.readouterr().err
    found = [problem for problem in find_problems(path) if str(problem).startswith(line)]
    assert found, "check"
    if isinstance(CASES[name][0], MemorySource):
        training = "training will refuse this: " if found[0].fatal else ""
        assert f"c: {training}{found[0].what}; {found[0].fix}" in told, "prepare"
    assert found[0].fatal == bool(NAMES[name].fatal)
    cohort = Cohort.open(path)
    if not found[0].fatal:
        refuse_fatal(cohort)
    else:
        with pytest.raises(CompsegError) as refused:
            refuse_fatal(cohort)
        assert line in str(refused.value)


def test_validation_samples_of_one_class_are_a_problem_that_training_can_do_with(tmp_path):
    splits = ["train", "train", "val", "train", "val", "train"]
    prepare(source(split=splits, patient=[""] * 6), tmp_path / "c", progress=False)
    (problem,) = find_problems(tmp_path / "c")
    assert (problem.what, problem.fatal) == ("split val has no disease sample", False)
    refuse_fatal(Cohort.open(tmp_path / "c"))


def test_test_samples_do_not_keep_training_from_starting(tmp_path):
    prepare(source(), tmp_path / "c", progress=False)
    shutil.rmtree(tmp_path / "c/samples/s05/image")
    assert [(problem.sample, problem.fatal) for problem in find_problems(tmp_path / "c")] == [("s05", False)]
    refuse_fatal(Cohort.open(tmp_path / "c"))


def test_nothing_is_trained_that_could_not_be_judged(tmp_path):
    prepare(source(split=["train"] * 4 + ["val"] * 2), tmp_path / "c", progress=False)
    for judged in ("val", "none"):
        refuse_fatal(Cohort.open(tmp_path / "c"), judged)
    with pytest.raises(CompsegError, match=r"no sample in split test; give splits .*or evaluation.split=val"):
        refuse_fatal(Cohort.open(tmp_path / "c"), "test")


@pytest.mark.parametrize("name", ["nothing to learn from", "a split without one class"])
def test_the_verbs(tmp_path, name, capsys):
    line = broken(name, tmp_path / "c")
    capsys.readouterr()
    assert run_here("check", f"cohort={tmp_path / 'c'}") == 1
    assert "refuses to start" in " ".join(capsys.readouterr().out.split())
    run = tmp_path / "run"
    assert run_here("train", *tiny(tmp_path / "c", run, "data.source=null")) == 1
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert complaint.startswith(f"compseg train: {tmp_path / 'c'}: {line}")
    assert not (run / "config.yaml").exists()


def test_a_cohort_without_training_samples_is_sound_to_judge_on_and_not_trained_on(tmp_path, capsys):
    prepare(source(split=["test"] * 6), tmp_path / "c", progress=False)
    assert run_here("check", f"cohort={tmp_path / 'c'}") == 0
    assert "sound, 6 samples; none in split train" in capsys.readouterr().out
    with pytest.raises(CompsegError, match=r"no sample in split train; .*1 more"):
        refuse_fatal(Cohort.open(tmp_path / "c"))
