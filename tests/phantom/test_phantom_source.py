"""Samples are deterministic, labelled as configured, and differ between classes in the tumour alone."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation, label

from compseg.errors import CompsegError
from compseg.phantom import PhantomSource
from compseg.samples import Channels, Source

LABELS = {"T": 1, "NAT": None, "N": 0}
ARRAYS = {"A": {"holds": {"T": 4, "NAT": 3, "N": 4}, "takes": {"train": {"healthy": 2, "disease": 3}}}}


def tiny(**changes):
    return PhantomSource(**{"arrays": ARRAYS, "class_labels": LABELS, "size": 32, "channels": 16} | changes)


def same(one, two):
    pairs = [(one.image, two.image), (one.tissue, two.tissue), (one.truth, two.truth), (one.thumbnail, two.thumbnail)]
    return all(np.array_equal(a, b) for a, b in pairs)


def test_is_a_source_with_a_spectral_axis():
    source: Source = tiny()
    axis = source.channels()
    assert axis == Channels(16, tuple(np.linspace(1800, 948, 16)), "cm-1")
    sample = source.read(source.infos()[0])
    assert sample.image.shape == (32, 32, 16)
    assert sample.image.dtype == np.float32
    assert sample.thumbnail.shape == (32, 32, 3)
    assert sample.thumbnail.dtype == np.uint8


def test_reading_is_deterministic_and_independent_of_order():
    one, two = tiny(), tiny()
    forward = {info.name: one.read(info) for info in one.infos()}
    backward = {info.name: two.read(info) for info in reversed(two.infos())}
    assert all(same(forward[name], backward[name]) for name in forward)
    first, second = list(forward)[:2]
    assert not np.array_equal(forward[first].image, forward[second].image)


def test_the_seed_changes_the_cohort():
    one, two = tiny(seed=1), tiny(seed=2)
    assert not np.array_equal(one.read(one.infos()[0]).tissue, two.read(two.infos()[0]).tissue)


def test_more_arrays_leave_earlier_ones_as_they_were():
    small, large = tiny(), tiny(arrays=ARRAYS | {"B": ARRAYS["A"]})
    assert large.infos()[:5] == small.infos()
    assert same(large.read(large.infos()[4]), small.read(small.infos()[4]))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(size=st.integers(16, 80), channels=st.integers(8, 40), seed=st.integers(0, 2**32))
def test_masks_hold_for_every_size_and_seed(size, channels, seed):
    source = tiny(size=size, channels=channels, seed=seed)
    for info in source.infos()[:3]:
        sample = source.read(info)
        assert sample.image.shape == (size, size, channels)
        assert np.isfinite(sample.image).all()
        assert not (sample.truth & ~sample.tissue).any()
        assert sample.truth.any() == bool(info.label)


def test_tumour_takes_the_fraction_it_is_given():
    source = tiny(tumour_fraction=[0.3, 0.3])
    for info in source.infos():
        sample = source.read(info)
        assert sample.truth.sum() == round(0.3 * sample.tissue.sum()) * info.label


def test_small_tumours_are_of_the_sizes_given_and_take_their_share():
    source = tiny(size=64, tumour_fraction=[0.005, 0.005], tumour_pixels=[2, 4])
    sizes = []
    for info in source.infos():
        sample = source.read(info)
        assert sample.truth.sum() == round(0.005 * sample.tissue.sum()) * info.label
        sizes += np.bincount(label(sample.truth, np.ones((3, 3)))[0].ravel())[1:].tolist()
    # The last tumour of a spot is what is left of the share, and two may touch.
    assert np.median(sizes) in (2, 3, 4)
    assert max(sizes) <= 8


def test_a_disease_spot_is_a_healthy_spot_with_tumour_painted_on():
    source = tiny(size=64)
    spot = next(s for s in source._spots.values() if s.info.label)
    disease, healthy = source.render(spot), source.render(replace(spot, info=replace(spot.info, label=0)))
    np.testing.assert_array_equal(disease.tissue, healthy.tissue)
    changed = np.abs(disease.image - healthy.image).max(-1) > 1e-4
    assert not (changed & ~binary_dilation(disease.truth, np.ones((5, 5)))).any()  # two pixels: the instrument's blur
    assert changed[disease.truth].mean() > 0.99
    assert not healthy.truth.any()


def test_a_size_changes_the_grid_and_not_the_spot():
    small, large = tiny(size=48), tiny(size=144)
    for info in small.infos()[:3]:
        a, b = small.read(info), large.read(info)
        assert (a.tissue == b.tissue[1::3, 1::3]).mean() > 0.99
        assert (a.truth == b.truth[1::3, 1::3]).mean() > 0.97


def test_left_out_classes_and_patients():
    source = tiny(spots_per_patient=2)
    infos = source.infos()
    assert [info.label for info in infos].count(1) == 3
    assert {info.class_name for info in infos} == {"T", "N"}
    patients = [info.patient for info in infos]
    assert max(patients.count(p) for p in patients) == 2
    assert len(set(patients)) == 3


def test_provenance_is_plain_and_tells_every_parameter():
    plain = tiny(noise=0.01).provenance()
    assert plain["noise"] == 0.01
    assert plain["arrays"] == ARRAYS
    assert plain["generator"].startswith("compseg-phantom-")
    assert set(plain) == {"source", "generator"} | set(PhantomSource.__init__.__annotations__) - {"return"}
    assert plain != tiny(noise=0.02).provenance()


def test_a_spot_of_the_papers_size_stays_small():
    source = tiny(size=256, channels=450)
    tracemalloc.start()
    sample = source.read(source.infos()[0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sample.image.nbytes == 256 * 256 * 450 * 4
    assert peak < 3 * sample.image.nbytes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 8}, "size: expected at least 16, got 8"),
        ({"noise": -1}, "noise: expected at least 0"),
        ({"difficulty": 0}, "difficulty: expected more than 0"),
        ({"tumour_fraction": [0, 0.5]}, "tumour_fraction: expected 0 < low <= high < 1"),
        ({"tumour_pixels": [3, 2]}, "tumour_pixels: expected 1 <= smallest <= largest"),
        ({"tumour_fraction": [0.5]}, "tumour_fraction: expected 0 < low <= high < 1"),
        ({"shortcuts": {"aera": 0.1}}, "did you mean 'area'"),
        ({"class_labels": {"T": 1, "N": 0}}, "arrays.A.holds: expected one of T, N, got NAT"),
        ({"arrays": {"A": {"holds": {"T": 1}, "takes": {"train": {"disease": 2}}}}}, "at most the 1 disease spots"),
        ({"arrays": {"A": {"holds": {"T": 1}, "takes": {"trian": {}}}}}, "did you mean 'train'"),
        ({"arrays": {"A": {"holds": {"T": 1}, "takes": {"train": {"ill": 1}}}}}, "healthy, disease"),
        ({"arrays": {"A": {"holds": {"T": 1}}}}, "got no takes"),
        ({"arrays": {"A": ARRAYS["A"] | {"effect": {"gian": 1}}}}, "did you mean 'gain'"),
    ],
)
def test_errors_say_what_was_expected(changes, message):
    with pytest.raises(CompsegError) as caught:
        tiny(**changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_of_arrays_and_classes_may_be_numbers():
    """YAML reads `1:` as a number; in the cohort it is the name of a group or a class."""
    arrays = {7: {"holds": {1: 4, 0: 4}, "takes": {"train": {"healthy": 2, "disease": 3}}}}
    numbers = tiny(arrays=arrays, class_labels={1: 1, 0: 0})
    words = tiny(arrays={"7": {**arrays[7], "holds": {"1": 4, "0": 4}}}, class_labels={"1": 1, "0": 0})
    assert numbers.infos() == words.infos()
    assert {info.group for info in numbers.infos()} == {"7"}
    assert {(info.class_name, info.label) for info in numbers.infos()} == {("1", 1), ("0", 0)}
    assert numbers.provenance() == words.provenance()


def test_reading_an_unknown_sample_is_refused():
    source = tiny()
    with pytest.raises(CompsegError, match="expected one of its 5 samples, got nobody"):
        source.read(replace(source.infos()[0], name="nobody"))
