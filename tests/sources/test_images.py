import os

import numpy as np
import pytest
import tifffile
from PIL import Image

from compseg.cohort import prepare
from compseg.errors import CompsegError
from compseg.samples import Channels
from compseg.sources import Images

CUBE = np.arange(24, dtype=np.float32).reshape(3, 4, 2)


def write(folder, rows, header="sample,image,label,truth", **arrays):
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder / "labels.csv"


def test_reads_image_masks_and_thumbnail(tmp_path):
    picture = np.full((6, 8, 3), 9, np.uint8)
    Image.fromarray(picture).save(tmp_path / "he.png")
    tissue, truth = CUBE[..., 0] > 4, CUBE[..., 0] > 12
    header = "sample,image,label,tissue,truth,reference"
    manifest = write(tmp_path, ["s1,x.npy,1,m.npy,t.npy,he.png"], header, x=CUBE, m=tissue, t=truth)
    source = Images(manifest)
    arrays = source.read(source.infos()[0])
    np.testing.assert_array_equal(arrays.image, CUBE)
    np.testing.assert_array_equal(arrays.tissue, tissue)
    np.testing.assert_array_equal(arrays.truth, truth)
    np.testing.assert_array_equal(arrays.thumbnail, picture)
    assert source.channels() == Channels(2)


def test_truth_of_healthy_samples_is_empty_where_others_have_truth(tmp_path):
    truth = CUBE[..., 0] > 12
    manifest = write(tmp_path, ["h,x.npy,0,", "d,x.npy,1,t.npy", "n,x.npy,1,"], x=CUBE, t=truth)
    source = Images(manifest)
    healthy, disease, bare = (source.read(info).truth for info in source.infos())
    assert healthy is not None
    assert healthy.shape == (3, 4)
    assert not healthy.any()
    np.testing.assert_array_equal(disease, truth)
    assert bare is None


def test_without_any_truth_no_sample_has_one(tmp_path):
    source = Images(write(tmp_path, ["h,x.npy,0,", "d,x.npy,1,"], x=CUBE))
    assert all(source.read(info).truth is None for info in source.infos())


def test_channels_of_pictures_have_names_and_of_an_axis_have_values(tmp_path):
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(tmp_path / "g.png")
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(tmp_path / "c.png")
    assert Images(write(tmp_path, ["s,g.png,0,"])).channels() == Channels(1, names=("grey",))
    assert Images(write(tmp_path, ["s,c.png,0,"])).channels() == Channels(3, names=("red", "green", "blue"))
    manifest = write(tmp_path, ["s,x.npy,0,"], x=CUBE)
    assert Images(manifest, axis=[1800, 950], unit="cm-1").channels() == Channels(2, (1800.0, 950.0), "cm-1")


def test_which_value_of_the_truth_is_disease(tmp_path):
    labels = np.array([[0, 1, 2, 0]] * 3)
    rows = ["a,x.npy,1,t.npy", "b,x.npy,1,o.npy", "c,x.npy,0,"]
    manifest = write(tmp_path, rows, x=CUBE, t=labels, o=(labels == 2) * 255)

    def read(**options):
        source = Images(manifest, **options)
        return [source.read(info) for info in source.infos()]

    several, one, healthy = read()
    np.testing.assert_array_equal(several.truth, labels != 0)
    assert several.remarks == ("truth: 1 and 2 are all taken for disease; source.truth_value=2 would take one",)
    assert one.remarks == ("truth: 255 is taken for disease",)
    assert (healthy.truth.any(), healthy.remarks) == (False, ())
    for value in (2, [2]):
        chosen, none, _ = read(truth_value=value)
        np.testing.assert_array_equal(chosen.truth, labels == 2)
        assert chosen.remarks == ("truth: 2 is taken for disease",)
        assert not none.truth.any()
    assert Images(manifest, truth_value=2).provenance() != Images(manifest).provenance()
    for wrong in ("2", 2.5, True, [], [None]):
        with pytest.raises(CompsegError, match=r"source\.truth_value=.*: expected a whole number, or a list of them"):
            Images(manifest, truth_value=wrong)


def test_a_class_that_yaml_has_read_as_a_number_is_refused(tmp_path):
    manifest = write(tmp_path, ["s,x.npy,0,"], x=CUBE)
    for word in (1e5, True):
        with pytest.raises(CompsegError, match=r"source\.classes: .* was read as (float|bool); quote it"):
            Images(manifest, classes={word: 1})


def test_several_values_of_tissue_are_said(tmp_path):
    labels = np.array([[0, 1, 2, 0]] * 3)
    manifest = write(tmp_path, ["a,x.npy,1,t.npy"], "sample,image,label,tissue", x=CUBE, t=labels)
    source = Images(manifest, truth_value=2)  # of truth alone
    arrays = source.read(source.infos()[0])
    np.testing.assert_array_equal(arrays.tissue, labels != 0)
    assert arrays.remarks == ("tissue: 1 and 2 are all taken for tissue",)


def test_pictures_go_through_prepare_as_they_are(tmp_path, capfd):
    """Colour of 16 bits with LZW, its truth with white as zero; the picture is not upright."""
    rng = np.random.default_rng(0)
    rows, images, truths = [], [], []
    for place in range(8):
        images.append(rng.integers(0, 4096, (12, 16, 3)).astype(np.uint16))
        truths.append((np.arange(16) < 5) & (np.arange(12)[:, None] < 4))
        name, rotated = f"s{place}", [(274, 3, 1, 6, True)]
        tifffile.imwrite(tmp_path / f"{name}.tif", images[-1], photometric="rgb", compression="lzw", extratags=rotated)
        tifffile.imwrite(
            tmp_path / f"{name}t.tif",
            np.where(truths[-1], 0, 255).astype(np.uint8),
            photometric="miniswhite",
            compression="deflate",
            extratags=rotated,
        )
        rows.append(f"{name},{name}.tif,{place % 2},{name}t.tif" if place % 2 else f"{name},{name}.tif,0,")
    cohort = prepare(Images(write(tmp_path, rows)), tmp_path / "c.zarr")
    for place in range(8):
        upright = np.rot90(images[place], -1)
        np.testing.assert_array_equal(cohort.image(f"s{place}"), upright.astype(np.float16))
        expected = np.rot90(truths[place], -1) if place % 2 else np.zeros((16, 12), bool)
        np.testing.assert_array_equal(cohort.truth(f"s{place}"), expected)
    said = capfd.readouterr().err
    assert said.count("truth: 255 is taken for disease (4 samples: s1, s3, s5 ...)") == 1


def test_shapes_that_do_not_fit(tmp_path):
    rows = ["s1,x.npy,0,", "s2,y.npy,0,", "s3,x.npy,1,t.npy"]
    source = Images(write(tmp_path, rows, x=CUBE, y=CUBE[..., :1], t=np.ones((4, 3), bool)))
    infos = source.infos()
    with pytest.raises(CompsegError, match=r"y\.npy: sample s2 has 1 channels .* expected 2 as in the first sample"):
        source.read(infos[1])
    with pytest.raises(CompsegError, match=r"t\.npy: truth of sample s3 is \(4, 3\), expected \(3, 4\)"):
        source.read(infos[2])
    with pytest.raises(CompsegError, match=r"expected 3 from source\.axis"):
        Images(tmp_path / "labels.csv", axis=[1, 2, 3]).read(infos[0])


def test_wrong_options(tmp_path):
    manifest = write(tmp_path, ["s,x.npy,0,"], x=CUBE)
    with pytest.raises(CompsegError, match=r"source\.keys\.truht: no such column; did you mean 'truth'"):
        Images(manifest, keys={"truht": "x"})
    for label in (2, True, "disease"):
        with pytest.raises(CompsegError, match=r"source\.classes\.T: expected 1 \(disease\)"):
            Images(manifest, classes={"T": label})


def test_classes_and_variables_may_be_numbers(tmp_path):
    """The command line reads `source.classes={1: 1}` as a number; in the manifest and in a file it is a name."""
    np.savez(tmp_path / "x.npz", **{"5": CUBE, "6": CUBE + 1})
    manifest = write(tmp_path, ["a,x.npz,1", "b,x.npz,2", "c,x.npz,3"], "sample,image,class")
    source = Images(manifest, classes={1: 1, 2: 0, 3: None}, keys={"image": 5})
    assert [(info.name, info.class_name, info.label) for info in source.infos()] == [("a", "1", 1), ("b", "2", 0)]
    np.testing.assert_array_equal(source.read(source.infos()[0]).image, CUBE)


def test_provenance_is_stable_and_notices_every_change(tmp_path):
    manifest = write(tmp_path, ["s,x.npy,0,"], x=CUBE)
    first = Images(manifest).provenance()
    assert Images(manifest).provenance() == first
    assert Images(manifest, axis=[1, 2]).provenance() != first
    assert Images(manifest, channels_first=True).provenance() != first
    os.utime(tmp_path / "x.npy", ns=(1, 1))
    touched = Images(manifest).provenance()
    assert touched != first
    write(tmp_path, ["s,x.npy,1,"])
    assert Images(manifest).provenance() != touched
