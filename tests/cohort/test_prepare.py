from dataclasses import replace

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from memory_source import MemorySource

from compseg.cohort import Cohort, prepare
from compseg.cohort.layout import block_edge
from compseg.cohort.writer import _converted
from compseg.errors import CompsegError
from compseg.samples import SampleInfo


def quiet(source, path, **options):
    return prepare(source, path, progress=False, **options)


@pytest.mark.parametrize("size", [(20, 24, 3), (64, 64, 2), (65, 130, 4), (1, 1, 1), (200, 20, 2)])
def test_round_trip(tmp_path, size):
    source = MemorySource(size=size)
    cohort = quiet(source, tmp_path / "c.zarr", pixel_size=5.5)
    assert cohort.channels == source.channels()
    assert (cohort.tissue_rule, cohort.dtype) == ("nonzero", "float16")
    assert (cohort.pixel_size, cohort.pixel_unit) == (5.5, "um")
    assert cohort.classes == {"N": 0, "T": 1}
    assert [replace(info, split="") for info in cohort.infos] == list(source.infos())
    for info in source.infos():
        written = source.read(info)
        assert cohort.shape(info.name) == size
        np.testing.assert_array_equal(cohort.image(info.name), written.image.astype(np.float16))
        np.testing.assert_array_equal(cohort.tissue(info.name), written.tissue)
        np.testing.assert_array_equal(cohort.truth(info.name), written.truth)
        thumbnail = cohort.thumbnail(info.name)
        assert (thumbnail is None) == (written.thumbnail is None)
        if thumbnail is not None:
            np.testing.assert_array_equal(thumbnail, written.thumbnail)


def test_float32_is_exact_and_float16_within_its_bound(tmp_path):
    source = MemorySource(count=2, size=(30, 30, 4))
    exact, half = (quiet(source, tmp_path / dtype, dtype=dtype) for dtype in ("float32", "float16"))
    image = source.read(source.infos()[0]).image
    np.testing.assert_array_equal(exact.image("s00"), image)
    error = np.abs(half.image("s00").astype(np.float64) - image)
    normal = np.abs(image) >= 6.2e-5
    assert (error[normal] <= 2.0**-11 * np.abs(image[normal])).all()
    assert error.max() > 0


def test_pictures_are_exact_in_float16(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    source = MemorySource(
        count=1, size=(16, 16, 1), change=lambda _, a: replace(a, image=levels, tissue=None, truth=None)
    )
    np.testing.assert_array_equal(quiet(source, tmp_path / "c").image("s00"), levels)


def test_layout_is_one_shard_of_checked_blocks(tmp_path):
    quiet(MemorySource(count=1, size=(100, 70, 3)), tmp_path / "c", chunk=32)
    image = zarr.open_array(tmp_path / "c", path="samples/s00/image", mode="r")
    assert image.chunks == (34, 35, 3)
    assert image.shards == (102, 70, 3)
    assert len(list((tmp_path / "c/samples/s00/image/c").rglob("*/*/0"))) == 1
    assert "crc32c" in (tmp_path / "c/samples/s00/tissue/zarr.json").read_text()


@given(st.integers(1, 5000), st.integers(1, 300))
def test_blocks_are_equal_and_near_the_wanted_edge(size, wanted):
    edge = block_edge(size, wanted)
    count = -(-size // edge)
    assert edge * count >= size
    assert edge * count - size < count  # no more than a pixel a block is wasted
    if size >= wanted:
        assert 2 / 3 * wanted <= edge <= 1.5 * wanted + 1
    else:
        assert edge == size


@given(
    arrays(np.float32, (3, 4, 2), elements=st.floats(-65504, 65504, width=32)),
    st.sampled_from(["float16", "float32"]),
)
def test_what_is_stored_is_within_the_documented_bound(image, dtype):
    """docs/reference/cohort.md: a relative error of at most 2**-11, an absolute one of at most 3e-8 below 6.1e-5."""
    stored = _converted("s", image, dtype).astype(np.float64)
    error = np.abs(stored - image)
    if dtype == "float32":
        assert not error.any()
    normal = np.abs(image) >= 2.0**-14
    assert (error[normal] <= 2.0**-11 * np.abs(image[normal], dtype=np.float64)).all()
    assert (error[~normal] <= 3e-8).all()


def test_tissue_rule_applies_where_no_mask_is_given(tmp_path):
    image = np.zeros((4, 5, 2), np.float32)
    image[1, 2, 1] = 0.5
    source = MemorySource(count=2, size=(4, 5, 2), change=lambda _, a: replace(a, image=image, tissue=None, truth=None))
    nonzero = quiet(source, tmp_path / "a")
    np.testing.assert_array_equal(np.argwhere(nonzero.tissue("s00")), [[1, 2]])
    everything = quiet(source, tmp_path / "b", tissue="all")
    assert everything.tissue_rule == "all"
    assert everything.tissue("s00").all()


def test_masks_that_the_rule_does_not_give_are_known_to_the_segmenter(tmp_path):
    image = np.random.default_rng(0).uniform(1, 2, (4, 5, 2)).astype(np.float32)
    image[:, :2] = 0
    found = image[..., 0] > 0

    def own_tissue(name, mask, rule="nonzero"):
        source = MemorySource(count=2, size=(4, 5, 2), change=lambda _, a: replace(a, image=image, tissue=mask))
        return quiet(source, tmp_path / name, tissue=rule).input.own_tissue

    assert not own_tissue("none", None)
    assert not own_tissue("alike", found)
    assert own_tissue("another", found & (np.arange(5) < 3))
    assert own_tissue("by another rule", found, "all")


def with_image(**changes):
    def change(info, arrays):
        if info.name != "s03":
            return arrays
        image = arrays.image.copy()
        image[2, 3, 1] = changes.get("value", 0)
        return replace(arrays, image=image[..., : changes.get("channels", 3)])

    return MemorySource(change=change)


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        (with_image(value=np.nan), {}, r"sample s03 \(s03\.npy\): 1 of 1440 values are NaN"),
        (with_image(value=-np.inf), {}, "NaN or infinite"),
        (with_image(value=7e4), {}, "sample s03 .* 70000 is beyond float16 .* dtype=float32"),
        (with_image(value=-7e4), {}, "70000 is beyond float16"),
        (with_image(channels=2), {}, r"\(20, 24, 2\), expected \(H, W, 3\)"),
        (
            MemorySource(change=lambda _, a: replace(a, truth=a.truth[1:])),
            {},
            r"truth is bool \(19, 24\), expected bool",
        ),
        (
            MemorySource(change=lambda _, a: replace(a, tissue=a.tissue * 1)),
            {},
            r"tissue is int64 \(20, 24\), expected bool",
        ),
        (MemorySource(), {"dtype": "int8"}, "dtype=int8: expected float16 or float32"),
        (MemorySource(), {"chunk": 0}, "chunk=0"),
        (MemorySource(), {"tissue": "some"}, "tissue=some"),
        (MemorySource(), {"splits": {"train": 0.9}}, "sum to 1"),
        (MemorySource(count=0), {}, "no samples"),
    ],
)
def test_refused_without_leaving_a_cohort(tmp_path, source, options, words):
    with pytest.raises(CompsegError, match=words) as raised:
        quiet(source, tmp_path / "c", **options)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "c").exists()


def test_values_beyond_float16_fit_float32(tmp_path):
    assert quiet(with_image(value=7e4), tmp_path / "c", dtype="float32").image("s03")[2, 3, 1] == 7e4


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", ".hidden", "_a", "con", "a" * 300, "a\udcff"])
def test_names_must_be_file_names(tmp_path, name):
    source = MemorySource()
    source.samples[1] = SampleInfo(name, 1)
    with pytest.raises(CompsegError, match="rename it"):
        quiet(source, tmp_path / "c")


def test_names_must_differ_by_more_than_case(tmp_path):
    source = MemorySource()
    source.samples[1] = SampleInfo("S00", 1)
    with pytest.raises(CompsegError, match="S00: its name comes twice"):
        quiet(source, tmp_path / "c")


def test_an_existing_cohort_is_kept_unless_told_otherwise(tmp_path):
    path = tmp_path / "c"
    reads = []
    quiet(MemorySource(before=lambda info: reads.append(info.name)), path)
    quiet(MemorySource(before=lambda info: reads.append(info.name)), path)
    assert len(reads) == 6  # the second call found it made alike
    with pytest.raises(CompsegError, match="made with other provenance; give another out=, or overwrite=true"):
        quiet(MemorySource(seed=1), path)
    with pytest.raises(CompsegError, match="made with other dtype"):
        quiet(MemorySource(), path, dtype="float32")
    assert Cohort.open(path).provenance == {"source": "memory", "seed": 0, "size": [20, 24, 3]}
    assert quiet(MemorySource(seed=1), path, overwrite=True).provenance["seed"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [".c.lock", "c"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_cohort_is_left_alone(tmp_path, overwrite):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter1.tex").write_text("dear")
    with pytest.raises(CompsegError, match="is no cohort, so it is left alone"):
        quiet(MemorySource(), tmp_path / "thesis", overwrite=overwrite)
    assert (tmp_path / "thesis/chapter1.tex").read_text() == "dear"
