"""The shipped cohorts keep what they promise."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import average_precision_score, roc_auc_score

from compseg.samples import SPLITS

NAMES = [
    "phantom",
    "phantom_hard",
    "phantom_null",
    "phantom_paper",
    "phantom_paper_small",
    "phantom_shortcut_area",
    "phantom_shortcut_array",
    "phantom_shortcut_background",
    "phantom_shortcut_thickness",
    "phantom_small_targets",
]
DEMO = {("train", 0): 50, ("train", 1): 50, ("val", 0): 14, ("val", 1): 14, ("test", 0): 20, ("test", 1): 20}
PAPER = {("train", 0): 50, ("train", 1): 50, ("val", 0): 3, ("val", 1): 4, ("test", 0): 20, ("test", 1): 20}


def read(source, *splits):
    return [(info, source.read(info)) for info in source.infos() if info.split in splits]


@pytest.fixture(scope="module")
def default(preset):
    """The default cohort's samples by split, made once."""
    return {split: read(preset("phantom"), split) for split in SPLITS}


def spectra(samples, each=None):
    """Tissue spectra after standard normal variate, and their truth."""
    rng, spectra, truths = np.random.default_rng(0), [], []
    for _, sample in samples:
        image, truth = sample.image[sample.tissue], sample.truth[sample.tissue]
        chosen = slice(None) if each is None else rng.choice(len(image), each, replace=False)
        spectra.append((image - image.mean(1, keepdims=True))[chosen] / image.std(1, keepdims=True)[chosen])
        truths.append(truth[chosen])
    return np.concatenate(spectra), np.concatenate(truths)


def pixel_discriminant(train, test):
    """Average precision on the test array of a linear discriminant fitted to pixel truth, and the prevalence."""
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(*spectra(train, 200))
    test, truth = spectra(test)
    return average_precision_score(truth, model.decision_function(test)), truth.mean()


def sample_auc(samples, measure):
    """How well one number for each sample tells the label."""
    return roc_auc_score([info.label for info, _ in samples], [measure(sample) for _, sample in samples])


@pytest.mark.parametrize("name", NAMES)
def test_counts_splits_and_patients(preset, name):
    source = preset(name)
    infos = source.infos()
    assert Counter((info.split, info.label) for info in infos) == (PAPER if "paper" in name else DEMO)
    assert len({info.name for info in infos}) == len(infos)
    assert all(len({i.split for i in infos if i.patient == patient}) == 1 for patient in {i.patient for i in infos})
    test_arrays = {info.group for info in infos if info.split == "test"}
    assert len(test_arrays) == 1
    assert not test_arrays & {info.group for info in infos if info.split != "test"}


def test_the_papers_arrays(preset):
    source = preset("phantom_paper")
    assert source.channels().count == 450
    infos, arrays = source.infos(), source.provenance()["arrays"]
    assert {info.group for info in infos if info.split != "test"} == {"CO1002b", "CO722"}
    assert {info.group for info in infos if info.split == "test"} == {"BC051111"}
    assert all(100 <= sum(array["holds"].values()) <= 200 for array in arrays.values())
    assert {info.class_name for info in infos} <= {"T", "TI", "TII", "TIII", "M", "N"}
    assert {info.class_name for info in infos if info.label == 0} == {"N"}
    third = arrays["BC051111"]["holds"]
    assert (third["N"], sum(count for word, count in third.items() if word not in ("N", "NAT"))) == (20, 180)
    assert len({info.patient for info in infos}) > 50


def test_default_is_learnable_but_not_by_single_pixels(default):
    precision, prevalence = pixel_discriminant(default["train"], default["test"])
    assert 0.6 < precision < 0.85
    assert 0.15 < prevalence < 0.2


def test_hard_is_hard(preset):
    source = preset("phantom_hard")
    precision, prevalence = pixel_discriminant(read(source, "train"), read(source, "test"))
    assert 0.4 < precision < 0.55
    assert 0.08 < prevalence < 0.15


def test_difficulty_lowers_what_a_pixel_tells(preset):
    source = preset("phantom", difficulty=2)
    assert pixel_discriminant(read(source, "train"), read(source, "test"))[0] < 0.55  # the default is above .6


def level(sample):
    return sample.image[sample.tissue].mean()


MEASURES = {
    "area": lambda sample: sample.tissue.sum(),
    "thickness": level,
    "background": lambda sample: sample.image[~sample.tissue].mean(),
}


@pytest.mark.parametrize("cue", MEASURES)
def test_default_has_no_shortcut(default, cue):
    samples = default["train"] + default["val"]
    healthy, disease = ([MEASURES[cue](s) for info, s in samples if info.label == label] for label in (0, 1))
    assert ks_2samp(healthy, disease).pvalue > 0.05
    assert 0.3 < sample_auc(default["test"], MEASURES[cue]) < 0.7


@pytest.mark.parametrize("cue", MEASURES)
def test_a_shortcut_works_in_training_and_not_in_test(preset, default, cue):
    source = preset(f"phantom_shortcut_{cue}")
    train, test = read(source, "train"), read(source, "test")
    assert sample_auc(train, MEASURES[cue]) > 0.85
    assert sample_auc(read(source, "val"), MEASURES[cue]) > 0.85
    assert 0.25 < sample_auc(test, MEASURES[cue]) < 0.75
    # the cue is still there, as often as in training, and now means nothing
    spread, plain = (np.std([MEASURES[cue](s) for _, s in samples]) for samples in (test, default["test"]))
    assert spread > 1.2 * plain
    assert 0.6 < pixel_discriminant(train, test)[0] < 0.85  # what is to be found is as spectral as ever


def test_the_array_shortcut_is_in_training_alone(preset):
    infos = preset("phantom_shortcut_array").infos()
    for split in ("train", "val"):
        chosen = [info for info in infos if info.split == split]
        assert np.mean([(info.group == "A1") == bool(info.label) for info in chosen]) > 0.85
    assert {info.group for info in infos if info.split == "test"} == {"A3"}


def test_null_has_nothing_to_find(preset, default):
    null = dict(read(preset("phantom_null"), "val"))
    for info, sample in default["val"]:
        assert not null[info].truth.any()
        assert np.array_equal(null[info].image, sample.image) == (info.label == 0)


def test_every_preset_is_covered():
    shipped = {path.stem for path in (Path(__file__).parents[2] / "conf" / "source").glob("phantom*.yaml")}
    assert shipped == set(NAMES)
