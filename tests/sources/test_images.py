import os

import numpy as np
import pytest
from PIL import Image

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
