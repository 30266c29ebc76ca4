"""What instruments write, read as other libraries read it: values, axis, and rows from the top."""

from __future__ import annotations

import builtins
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import tifffile
import zarr
from PIL import Image

from compseg.axes import align
from compseg.errors import CompsegError
from compseg.inputs import InputSpec
from compseg.sources.on_disk import OnDisk
from compseg.sources.readers import read_file, read_mask

DATA = Path(__file__).parents[3] / "shared/data/instrument_files"


def realdata(test):
    absent = pytest.mark.skipif(not DATA.is_dir(), reason="the instrument files are not beside the checkout")
    return pytest.mark.realdata(absent(test))


# File, variables, shape, first and last position, unit, sum of all values, thumbnail.
FILES = {
    "agilent/4_noimage_agg256.seq": ({}, (8, 8, 9), (1990.17823, 2113.60013), "cm-1", 547.0907885),
    "agilent/4_noimage_agg256.hdr": ({}, (8, 8, 9), (1990.17823, 2113.60013), "cm-1", 547.0907885),
    "agilent/5_mosaic_agg1024.dmt": ({}, (8, 4, 9), (1990.17823, 2113.60013), "cm-1", 189.0603215),
    "small_Omnic.map": ({}, (2, 2, 14), (1604.51001, 1805.0741), "cm-1", 207.1748931),
    "renishaw/renishaw_test_map.wdf": ({}, (3, 3, 47), (350.6773, 346.7728), "nm", 665.057),
    "renishaw/interrupted_acquisition.wdf": ({}, (4, 4, 1010), (1128.625, -163.6934), "cm-1", 3282173),
    "renishaw/renishaw_test_linescan.wdf": ({}, (1, 5, 40), (364.6418, 361.3132), "nm", 118.876),
    "bruker_opus/test_spectra.0": ({}, (1, 1, 4819), (7498.2917, 599.9206), "cm-1", 1658.36),
    "bruker_opus/issue82_Opus_test.0": ({}, (1, 1, 1112), (12488, 3600), "cm-1", 759.838),
    "bruker_opus/MMP_2107_Test1.001": ({}, (1, 1, 1899), (11540, 3948), "cm-1", 441.798),
    "perkinelmer/4x4_pixel_PE_image.fsm": ({}, (4, 4, 1626), (4000, 750), "cm-1", 2583198.3),
    "witec/Si-data.WIP": ({}, (5, 5, 1024), (87.7367, 2821.3062), "cm-1", 28371431),
    "photothermal/Hyper_Sample.ptir": ({}, (5, 7, 451), (900, 1800), "cm-1", None),
    "cytospec/cytospec.mat": ({}, (11, 7, 981), (499.1158, 3100.0358), "cm-1", 113275215.28),
    "envi/cubus_gamsberg_subset.hdr": ({}, (25, 10, 189), (426.82, 2324.91), "nm", 193859935),
    "envi/derived_bil_le_f4.hdr": ({}, (25, 10, 189), (426.82, 2324.91), "nm", 193859935),
    "envi/derived_bip_be_f4.hdr": ({}, (25, 10, 189), (426.82, 2324.91), "nm", 193859935),
    "envi/derived_bsq_be_i2.hdr": ({}, (25, 10, 189), (426.82, 2324.91), "nm", 193859895),
    "envi/derived_bip_le_u2.hdr": ({}, (25, 10, 189), (426.82, 2324.91), "nm", 193859895),
    "envi/toy.hdr": ({}, (167, 150, 4), None, "", 200895967),
    "envi/corn-kernel-hyperspectral.hdr": ({}, (31, 43, 580), (366.551, 1048.421), "nm", 465077677),
    "hdf5/small_diamond_nxs.nxs": ({"image": "entry1/Counter1/data"}, (8, 7, 6), None, "", 452027),
    "hdf5/hermes_small_OK.hdf5": ({"image": "entry1/Counter0/data"}, (2, 2, 2), None, "", 20004.8),
    "tiff/test_loading_image_saved_with_imageJ_stack.tif": ({}, (68, 68, 2), None, "", None),
}


@realdata
@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_as_its_table_says(name):
    keys, shape, axis, unit, total = FILES[name]
    # The unit is what a file without one is told to have.
    found = read_file(DATA / name, InputSpec(keys), unit="nm" if unit == "nm" else "", mapped=True)
    assert found.image.shape == shape
    assert found.channels.unit == unit
    assert found.channels.count == shape[2]
    if axis is not None:
        np.testing.assert_allclose([found.channels.values[0], found.channels.values[-1]], axis, rtol=1e-6)
    if total is not None:
        np.testing.assert_allclose(np.asarray(found.image).sum(dtype=float), total, rtol=1e-6)


def agilent_mosaic(path):
    found = pytest.importorskip("agilent_format").agilentMosaic(path)
    return found.data[::-1], found.wavenumbers  # that library's first row is the lowest


def agilent_tile(path):
    found = pytest.importorskip("agilent_format").agilentImage(path)
    return found.data[::-1], found.wavenumbers


def opus(path):
    found = pytest.importorskip("brukeropus").read_opus(path)
    block = found.r if found.a is None else found.a
    return block.y[None, None], block.x


def wire(path):
    found = pytest.importorskip("renishawWiRE").WDFReader(path)
    return found.spectra, found.xdata


def spectral_python(path):
    found = pytest.importorskip("spectral").envi.open(path)
    return found.load(), found.bands.centers


ORACLES = {
    "agilent/5_mosaic_agg1024.dmt": agilent_mosaic,
    "agilent/4_noimage_agg256.seq": agilent_tile,
    "agilent/4_noimage_agg256.hdr": lambda path: agilent_tile(path.replace(".hdr", ".seq")),
    "bruker_opus/issue82_Opus_test.0": opus,
    "bruker_opus/test_spectra.0": opus,
    "renishaw/renishaw_test_map.wdf": wire,
    "envi/derived_bip_be_f4.hdr": spectral_python,
    "envi/derived_bil_le_f4.hdr": spectral_python,
}


@realdata
@pytest.mark.parametrize(("name", "oracle"), ORACLES.items(), ids=ORACLES)
def test_another_library_reads_the_same_the_same_way_up(name, oracle):
    """With rows or columns the other way round each of these would differ."""
    values, axis = oracle(str(DATA / name))
    found = read_file(DATA / name)
    np.testing.assert_array_equal(found.image, np.asarray(values, found.image.dtype))
    np.testing.assert_allclose(found.channels.values, axis, rtol=1e-6)
    flipped = np.asarray(values)[::-1]
    assert flipped.shape[0] == 1 or not np.array_equal(found.image, flipped)


@realdata
def test_a_window_of_an_agilent_mosaic_is_read_by_itself():
    found = read_file(DATA / "agilent/5_mosaic_agg1024.dmt", mapped=True).image
    assert isinstance(found, OnDisk)
    np.testing.assert_array_equal(found[1:6, 1:3], read_file(DATA / "agilent/5_mosaic_agg1024.dmt").image[1:6, 1:3])


@realdata
def test_the_stage_of_photothermal_counts_upwards():
    h5py = pytest.importorskip("h5py")
    path = DATA / "photothermal/Hyper_Sample.ptir"
    with h5py.File(path) as file:
        spectra, places = file["Measurement_000/Channel_000/Raw_Data"][:], file["Measurement_000/Position_Values"][:]
        # The instrument's own start of Y, which falls from row to row.
        top, left = (file["Measurement_000"].attrs[f"Range{axis}Start"][0] for axis in "YX")
    first = np.abs(places - [left, top]).sum(axis=1).argmin()
    np.testing.assert_array_equal(read_file(path).image[0, 0], spectra[first])
    assert read_file(path, InputSpec({"image": "Measurement_001"})).channels.count == 1024
    with pytest.raises(CompsegError, match="no hyperspectral image ; it holds single spectra"):
        read_file(DATA / "photothermal/Spectra_w_Image.ptir")


@realdata
def test_the_picture_of_the_instrument_becomes_the_thumbnail(tmp_path):
    assert read_file(DATA / "renishaw/renishaw_test_map.wdf").thumbnail.shape == (480, 752, 3)
    assert read_file(DATA / "small_Omnic.map").thumbnail.shape == (687, 833, 3)
    for file in (DATA / "agilent").glob("5_*"):
        shutil.copy(file, tmp_path)
    Image.fromarray(np.full((6, 5, 3), 9, np.uint8)).save(tmp_path / "IrCutout.bmp")
    found = read_file(tmp_path / "5_mosaic_agg1024.dmt")
    np.testing.assert_array_equal(found.thumbnail, np.full((6, 5, 3), 9))


@realdata
def test_what_was_not_measured_is_zero():
    assert read_file(DATA / "renishaw/interrupted_acquisition.wdf").unmeasured == 4
    found = read_file(DATA / "cytospec/cytospec.mat")
    assert found.unmeasured == 22
    assert not found.image[0, 0].any()
    # X is the first axis of the file.
    stored = scipy.io.loadmat(DATA / "cytospec/cytospec.mat")["C"]
    np.testing.assert_array_equal(found.image[5, 3], stored[3, 5, :, 0])


@realdata
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_ome_zarr_of_old_versions(tmp_path, version):
    folder = shutil.copytree(DATA / "ome_zarr" / version, tmp_path / "a.zarr")
    found = read_file(folder)
    assert found.image.shape == (16, 16, 2)
    assert found.image.sum() == 5235


@realdata
@pytest.mark.parametrize("name", ["agilent/background_agg256.seq", "bruker_opus/file.0"])
def test_interferograms_are_passed_over(name):
    assert read_file(DATA / name).channels.unit == "cm-1"


CUBE = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)  # rows, columns, channels


def spero(path):
    # MATLAB's order: a column of the image after the other.
    columns = CUBE.swapaxes(0, 1).reshape(6, 4)
    wn = np.array([[1000.0], [1010.0], [1020.0], [1030.0]])
    scipy.io.savemat(path / "a.mat", {"r": columns, "wn": wn, "dX": 3, "dY": 2})
    return path / "a.mat"


def ome_zarr(path):
    group = zarr.open_group(path / "a.zarr", mode="w", zarr_format=3)
    stored = np.moveaxis(CUBE, -1, 0)[None, :, None]
    group.create_array("0", data=stored)
    axes = [{"name": axis} for axis in "tczyx"]
    group.attrs["ome"] = {
        "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}],
        "omero": {"channels": [{"label": name} for name in "abcd"]},
    }
    return path / "a.zarr"


def hdf5(path):
    with pytest.importorskip("h5py").File(path / "a.h5", "w") as file:
        file["HyperSpecCube"] = CUBE
        file["WVN"] = np.arange(4.0)[:, None]
        file["mask"] = CUBE[..., 0] > 5
    return path / "a.h5"


def struct(path):
    scipy.io.savemat(path / "a.mat", {"spot": {"data": CUBE, "axis": np.arange(4.0)}, "note": "text", "other": CUBE})
    return path / "a.mat"


def pages(path):
    tifffile.imwrite(path / "a.tif", np.moveaxis(CUBE, -1, 0), photometric="minisblack")
    return path / "a.tif"


MADE = {
    "Spero": (spero, {}, 1000.0, "cm-1"),
    "OME-Zarr": (ome_zarr, {}, None, ""),
    "HDF5": (hdf5, {"image": "HyperSpecCube", "axis": "WVN"}, 0.0, ""),
    "structure": (struct, {"image": "spot.data", "axis": "spot.axis"}, 0.0, ""),
    "pages": (pages, {}, None, ""),
}


@pytest.mark.parametrize(("make", "keys", "first", "unit"), MADE.values(), ids=MADE)
def test_rows_are_from_the_top(tmp_path, make, keys, first, unit):
    found = read_file(make(tmp_path), InputSpec(keys))
    np.testing.assert_array_equal(found.image, CUBE)
    assert found.channels.unit == unit
    assert first is None or found.channels.values[0] == first


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_envi_of_any_order(tmp_path, interleave, order):
    pytest.importorskip("spectral")
    axes = {"bsq": (2, 0, 1), "bil": (0, 2, 1), "bip": (0, 1, 2)}[interleave]
    (tmp_path / "a.raw").write_bytes(b"12345678" + CUBE.transpose(axes).astype(f"{order}f4").tobytes())
    (tmp_path / "a.hdr").write_text(
        f"ENVI\nsamples = 3\nlines = 2\nbands = 4\nheader offset = 8\ndata type = 4\ninterleave = {interleave}\n"
        f"byte order = {int(order == '>')}\nwavelength units = Micrometers\nwavelength = {{10, 9, 8, 7}}\n"
    )
    found = read_file(tmp_path / "a.hdr", mapped=True)
    assert isinstance(found.image, np.memmap)
    np.testing.assert_array_equal(found.image, CUBE)
    assert found.channels.unit == "um"
    np.testing.assert_array_equal(read_file(tmp_path / "a.raw").image, CUBE)
    shutil.copy(tmp_path / "a.raw", tmp_path / "b.dat")
    shutil.copy(tmp_path / "a.hdr", tmp_path / "b.dat.hdr")
    np.testing.assert_array_equal(read_file(tmp_path / "b.dat").image, CUBE)
    (tmp_path / "a.raw").write_bytes(bytes(20))
    with pytest.raises(CompsegError, match=r"a\.raw: 20 bytes, a\.hdr promises 104"):
        read_file(tmp_path / "a.hdr")


def test_names_of_ome_channels_and_masks_in_a_file(tmp_path):
    assert read_file(ome_zarr(tmp_path)).channels.names == ("a", "b", "c", "d")
    np.testing.assert_array_equal(read_mask(hdf5(tmp_path), "mask"), CUBE[..., 0] > 5)


REFUSED = {
    "HDF5 without a key": (hdf5, {}, "which array\\? it holds HyperSpecCube, WVN, mask; set source.keys.image"),
    "a field that is missing": (struct, {"image": "spot.cube"}, "no variable spot.cube; spot has data, axis"),
    "a key that is missing": (hdf5, {"image": "cube"}, "no array cube; it holds HyperSpecCube"),
}


@pytest.mark.parametrize(("make", "keys", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_refused(tmp_path, make, keys, words):
    with pytest.raises(CompsegError, match=words):
        read_file(make(tmp_path), InputSpec(keys))


@pytest.mark.parametrize(("suffix", "module"), [(".wdf", "openreadout"), (".hdr", "spectral"), (".h5", "h5py")])
def test_without_its_library_a_reader_says_what_to_install(tmp_path, monkeypatch, suffix, module):
    genuine = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == module:
            raise ImportError(name)
        return genuine(name, *args, **kwargs)

    (tmp_path / f"a{suffix}").write_bytes(b"something")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CompsegError, match=r"pip install 'compseg\[instruments\]'"):
        read_file(tmp_path / f"a{suffix}")


@realdata
def test_two_instruments_are_brought_to_one_axis():
    """Renishaw's axis falls, and a segmenter's may rise."""
    found = read_file(DATA / "renishaw/renishaw_test_map.wdf")
    rising = read_file(DATA / "renishaw/renishaw_test_map.wdf").channels
    expected = type(rising)(rising.count, rising.values[::-1], "nm")
    np.testing.assert_array_equal(align(found.channels, expected, "a")(found.image), found.image[..., ::-1])
