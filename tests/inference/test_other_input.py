"""Ways in which images may differ from those of training: each ends in the same map, or in one line that says why not.

What is brought to the segmenter's form beyond doubt may be silent; whatever is taken for granted or resampled is said.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.io
import tifffile
import torch
import zarr
from PIL import Image

from compseg.cohort import prepare
from compseg.errors import CompsegError
from compseg.evaluation.thresholds import fixed
from compseg.inference import Segmenter, load_segmenter
from compseg.inference.images import Reading, new_images
from compseg.inference.prediction import predict
from compseg.inputs import InputSpec
from compseg.models import SpectralSpatial
from compseg.preprocessing import Preprocess
from compseg.samples import Channels
from compseg.sources import Images

AXIS = np.linspace(1000.0, 1044.0, 12)
RNG = np.random.default_rng(0)
AMOUNT = RNG.random((9, 8, 3))  # of three components in each pixel, whose spectra are smooth
PHOTOGRAPH = RNG.integers(20, 250, (9, 8, 3), dtype=np.uint8)
MASK = np.ones((9, 8), np.uint8)
MASK[:3] = 0


def cube(axis=AXIS):
    """The same sample, measured at other positions."""
    spectra = [1 + np.cos((np.asarray(axis) - 1000) / scale) for scale in (30, 60, 90)]
    return np.einsum("hwk,kc->hwc", AMOUNT, spectra).astype(np.float32)


def made(channels, tissue, **known):
    torch.manual_seed(0)
    net = SpectralSpatial(channels.count, width=4, norm="none")
    torch.nn.init.normal_(net.output.weight)
    plain = Preprocess(channels.count)
    spec = InputSpec(**known)
    return Segmenter(net, plain, {}, {}, channels, tissue, "float32", fixed(0.5), input=spec)


KEYS = {"keys": {"image": "cube", "axis": "axis"}}
SPECTRA = made(Channels(12, tuple(AXIS.tolist()), "cm-1"), "all", kind="float", high=6.0)
KEYED = replace(SPECTRA, input=InputSpec(kind="float", high=6.0, **KEYS))
FIRST = replace(SPECTRA, input=InputSpec(kind="float", high=6.0, channels_first=True))
MASKED = replace(SPECTRA, input=InputSpec(kind="float", high=6.0, keys={"image": "cube", "tissue": "mask"}))
COLOURS = made(Channels(3, names=("red", "green", "blue")), "all", kind="uint8", high=249.0)
FRACTIONS = replace(COLOURS, input=InputSpec(kind="float", high=1.0))
UNMASKED = replace(KEYED, input=replace(KEYED.input, own_tissue=True))
DEEP = replace(COLOURS, input=InputSpec(kind="uint16", high=60000.0))
UNNAMED = replace(COLOURS, channels=Channels(3))
DIRECT = {id(s): s(cube()) for s in (SPECTRA, KEYED, FIRST)}
DIRECT[id(MASKED)] = SPECTRA(cube(), MASK > 0)
DIRECT |= {id(s): s(PHOTOGRAPH.astype(np.float32)) for s in (COLOURS, UNNAMED)}
DIRECT[id(UNMASKED)] = DIRECT[id(KEYED)]
DIRECT[id(FRACTIONS)] = FRACTIONS(PHOTOGRAPH.astype(np.float32) / 255)
DIRECT[id(DEEP)] = DEEP(PHOTOGRAPH.astype(np.float32) * 240)


class Case(NamedTuple):
    """What is given to which segmenter, and the end of it: `same` map, or words of a refusal; and what is said."""

    segmenter: Segmenter
    write: Callable[..., Any]
    end: str = "same"
    said: str = ""
    reading: Reading | None = None
    atol: float = 1e-6


def npy(array):
    return lambda folder: np.save(folder / "a.npy", array)


def npz(axis, image=None, **more):
    image = cube(axis) if image is None else image
    return lambda folder: np.savez(folder / "a.npz", cube=image, axis=axis, **more)


def in_unit(unit, axis=AXIS, image=None):
    """The axis in another unit, which the user or the file says."""
    values = {"nm": 1e7 / axis, "um": 1e4 / axis, "eV": axis / 8065.543937, "1/cm": axis, "furlong": axis}[unit]
    return {"write": npz(values, cube(axis)), "reading": Reading(InputSpec(**KEYS), unit=unit)}


def ome(names, order):
    pages = np.moveaxis(PHOTOGRAPH[..., order], -1, 0)
    options = {"metadata": {"axes": "CYX", "Channel": {"Name": names}}, "photometric": "minisblack"}
    return lambda folder: tifffile.imwrite(folder / "a.ome.tif", pages, ome=True, **options)


def envi(interleave, byte_order):
    def write(folder):
        envi = pytest.importorskip("spectral.io.envi")
        metadata = {"wavelength": AXIS[::-1].tolist(), "wavelength units": "Wavenumber"}
        options = {"interleave": interleave, "byteorder": byte_order, "metadata": metadata, "dtype": np.float32}
        envi.save_image(str(folder / "a.hdr"), cube(AXIS[::-1]), **options)

    return write


def cohort(axis, unit="cm-1", dtype="float32"):
    def write(folder):
        values = 1e7 / axis if unit == "nm" else axis
        for name in ("a", "b"):
            np.save(folder / f"{name}.npy", cube(axis))
        (folder / "labels.csv").write_text("sample,image,label\na,a.npy,1\nb,b.npy,0\n")
        source = Images(folder / "labels.csv", axis=values.tolist(), unit=unit)
        prepare(source, folder / "c.zarr", tissue="all", dtype=dtype, progress=False)

    return write


REVERSED, FINE, SHIFTED = AXIS[::-1], np.linspace(992, 1052, 31), AXIS + 1.7
WIDE = np.linspace(990, 1060, 41)
DIRECTION, LINEAR, TAKEN = "put in the other direction", "resampled linearly", "taken to have 12 channels from 1000"
CASES = {
    "the same axis": Case(KEYED, npz(AXIS), atol=0),
    "the other direction": Case(KEYED, npz(REVERSED), said=DIRECTION, atol=0),
    "nm": Case(KEYED, **in_unit("nm")),
    "um, the other direction": Case(KEYED, **in_unit("um", REVERSED), said=DIRECTION),
    "eV": Case(KEYED, **in_unit("eV")),
    "1/cm is cm-1": Case(KEYED, **in_unit("1/cm")),
    "a unit that is no length or energy": Case(KEYED, **in_unit("furlong"), end="axis is in furlong, expected cm-1"),
    "nm that are taken for cm-1": Case(
        KEYED, npz(1e7 / AXIS, cube()), end=r"axis is 9578\.54 to 10000 cm-1, expected 1000 to 1044.*give unit="
    ),
    "rounded to two decimals": Case(KEYED, npz(AXIS.round(2)), atol=0),
    "every second channel is expected": Case(KEYED, npz(FINE), said="12 of 31 channels taken"),
    "another grid": Case(KEYED, npz(WIDE), said=f"{LINEAR} from 41 channels from 990 to 1060", atol=2e-3),
    "shifted by less than half a channel": Case(KEYED, npz(SHIFTED), said=LINEAR, atol=3e-2),
    "another range": Case(
        KEYED, npz(np.linspace(2800, 2910, 12)), end=r"2800 to 2910 cm-1, expected 1000 to 1044 cm-1"
    ),
    "a narrower range": Case(KEYED, npz(AXIS[:9]), end=r"axis is 1000 to 1032 cm-1, expected 1000 to 1044 cm-1"),
    "a range with a gap": Case(
        KEYED, npz(np.r_[WIDE[:12], WIDE[24:]]), end=r"no channel between 1009\.25 and 1032 cm-1, where 5 are expected"
    ),
    "fewer values than channels": Case(KEYED, npz(AXIS[:9], cube()), end=r"an axis of 9 values for 12 channels"),
    "an axis that turns back": Case(KEYED, npz(np.roll(AXIS, 3), cube()), end="neither rise nor fall"),
    "names where positions are expected": Case(
        SPECTRA,
        npy(cube()),
        reading=Reading(axis=Channels(12, names=tuple("abcdefghijkl"))),
        end="has 12 channels, a, b, c, d ..., expected 12 channels from 1000 to 1044 cm-1",
    ),
    "no axis": Case(SPECTRA, npy(cube()), said=TAKEN, atol=0),
    "no axis and other channels": Case(SPECTRA, npy(cube(AXIS[:9])), end=r"image of shape \(9, 8, 9\)"),
    "an axis that is given": Case(
        SPECTRA, npy(cube(REVERSED)), said=DIRECTION, reading=Reading(axis=Channels(12, tuple(REVERSED), "cm-1"))
    ),
    "another key": Case(
        KEYED, lambda f: np.savez(f / "a.npz", it=cube(), axis=AXIS), end="no variable cube; it holds it"
    ),
    "another key that is given": Case(
        KEYED,
        lambda f: np.savez(f / "a.npz", it=cube(), axis=AXIS),
        reading=Reading(InputSpec({"image": "it", "axis": "axis"})),
        atol=0,
    ),
    "a mask in the file": Case(
        MASKED, lambda f: scipy.io.savemat(f / "a.mat", {"cube": cube(), "mask": MASK}), said=TAKEN, atol=0
    ),
    "a file without that mask": Case(MASKED, lambda f: np.savez(f / "a.npz", cube=cube()), end="no variable mask"),
    "channels first, as in training": Case(FIRST, npy(np.moveaxis(cube(), -1, 0)), said=TAKEN, atol=0),
    "channels last, unlike in training": Case(FIRST, npy(cube()), end=r"image of shape \(8, 12, 9\)"),
    "ENVI, bsq": Case(SPECTRA, envi("bsq", 0), said=DIRECTION, atol=0),
    "ENVI, bil, big-endian": Case(SPECTRA, envi("bil", 1), said=DIRECTION, atol=0),
    "ENVI, bip": Case(SPECTRA, envi("bip", 0), said=DIRECTION, atol=0),
    "float64, big-endian, in Fortran's order": Case(
        SPECTRA, npy(np.asfortranarray(cube().astype(">f8"))), said=TAKEN, atol=0
    ),
    "percent": Case(SPECTRA, npy(cube() * 100), said="is it the same scale", end="another map"),
    "counts of 16 bits for absorbance": Case(
        SPECTRA, npy((cube() * 1e4).astype(np.uint16)), end=r"values up to .*\(uint16\), the segmenter was trained"
    ),
    "a cohort in the other direction": Case(SPECTRA, cohort(REVERSED), said=DIRECTION, atol=0),
    "a cohort in nm": Case(SPECTRA, cohort(AXIS, "nm"), atol=1e-6),
    "a cohort of another range": Case(SPECTRA, cohort(AXIS + 400), end=r"1400 to 1444 cm-1, expected 1000 to 1044"),
    "a photograph": Case(COLOURS, lambda f: Image.fromarray(PHOTOGRAPH).save(f / "a.png"), atol=0),
    "channels in another order": Case(
        COLOURS, ome(["blue", "Red", "green"], [2, 0, 1]), said="in order by name", atol=0
    ),
    "a further channel": Case(COLOURS, ome(["dapi", "red", "green", "blue"], [0, 0, 1, 2]), said="by name", atol=0),
    "a channel that is missing": Case(
        COLOURS, ome(["dapi", "red", "green"], [2, 0, 1]), end="no channel blue among dapi, red, green"
    ),
    "grey for colour": Case(
        COLOURS,
        lambda f: Image.fromarray(PHOTOGRAPH[..., 0]).save(f / "a.png"),
        end="no channel red, green, blue among grey",
    ),
    "colours without names": Case(COLOURS, npy(PHOTOGRAPH), said="taken to have 3 channels, red, green, blue", atol=0),
    "8 bits as float": Case(COLOURS, npy(PHOTOGRAPH.astype(np.float32)), said="taken to have 3", atol=0),
    "a nearly black photograph as float": Case(
        COLOURS, npy((PHOTOGRAPH > 128) * 1.0), said="taken to", end="another map"
    ),
    "8 bits as int16": Case(UNNAMED, npy(PHOTOGRAPH.astype(np.int16)), atol=0),
    "fractions for 8 bits": Case(COLOURS, npy(PHOTOGRAPH / 255), said="fractions of 1 multiplied by 255", atol=1e-4),
    "16 bits for 8 bits": Case(
        UNNAMED,
        npy(PHOTOGRAPH.astype(np.uint16) * 257),
        end=r"\(uint16\), the segmenter was trained on values up to 249",
    ),
    "8 bits for fractions": Case(FRACTIONS, npy(PHOTOGRAPH), said="8 bits divided by 255", atol=1e-6),
    "8 bits for 16 bits": Case(
        DEEP, npy(PHOTOGRAPH), end=r"\(uint8\), the segmenter was trained on values up to 6e\+04"
    ),
    "no mask where training had masks": Case(UNMASKED, npz(AXIS), said="no tissue mask is given", atol=0),
    "the same 16 bits": Case(DEEP, npy(PHOTOGRAPH.astype(np.uint16) * 240), said="taken to have", atol=0),
}


def test_the_table_is_long_enough():
    assert len(CASES) >= 40


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_no_difference_is_silent(case, tmp_path, caplog):
    given, out = tmp_path / "given", tmp_path / "out"
    given.mkdir()
    case.write(given)
    place = given / "c.zarr" if (given / "c.zarr").exists() else given
    with caplog.at_level(logging.WARNING, "compseg"):
        if case.end not in ("same", "another map"):
            with pytest.raises(CompsegError, match=case.end) as raised:
                predict(case.segmenter, new_images(place), out, case.reading)
            assert "\n" not in str(raised.value)
            assert str(place) in str(raised.value)
            return
        predict(case.segmenter, new_images(place), out, case.reading)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == bool(case.said), said
    assert not case.said or case.said in said[0]
    found = np.load(next((out / "maps").glob("a*.npy")))
    if case.end == "same":
        np.testing.assert_allclose(found, DIRECT[id(case.segmenter)], rtol=0, atol=case.atol)


def test_what_is_known_of_the_files_is_stored_with_the_segmenter(tmp_path, segmenter):
    known = InputSpec({"image": "cube", "tissue": "mask"}, channels_first=True, kind="uint8", high=249.0)
    net = {"_target_": "compseg.models.SpectralSpatial", "in_channels": 12, "width": 4, "norm": "none"}
    stored = replace(KEYED, input=known, model_node=net, preprocess_node={
        "_target_": "compseg.preprocessing.Preprocess", "channels": 12,
    })  # fmt: skip
    stored.save(tmp_path)
    found = load_segmenter(tmp_path)
    assert found.input == known
    assert found.channels == SPECTRA.channels


def test_an_axis_is_given_from_python():
    direct = DIRECT[id(SPECTRA)]
    np.testing.assert_array_equal(SPECTRA(cube(REVERSED), axis=REVERSED), direct)
    np.testing.assert_allclose(SPECTRA(cube(), axis=(1e7 / AXIS).tolist(), unit="nm"), direct, atol=1e-6)
    np.testing.assert_array_equal(COLOURS(PHOTOGRAPH[..., ::-1], axis=["blue", "green", "red"]), DIRECT[id(COLOURS)])
    np.testing.assert_allclose(COLOURS(PHOTOGRAPH / 255), DIRECT[id(COLOURS)], atol=1e-4)
    with pytest.raises(CompsegError, match=r"image: values up to .* \(uint16\), the segmenter was trained on"):
        COLOURS(PHOTOGRAPH.astype(np.uint16) * 257)
    with pytest.raises(CompsegError, match="1400 to 1444 cm-1, expected 1000 to 1044"):
        SPECTRA(cube(), axis=AXIS + 400)
    with pytest.raises(CompsegError, match="axis: 11 channels for an image of"):
        SPECTRA(cube(), axis=AXIS[:11])


def test_the_files_of_one_measurement_in_a_folder_are_one_image(tmp_path):
    names = (
        "a.hdr",
        "a.img",
        "b.dmt",
        "b.dms",
        "b_0000_0000.dmd",
        "c.bsp",
        "c.dat",
        "c.seq",
        "c.hdr",
        "d.dat",
        "e.0",
        "f.npy",
    )
    for name in names:
        (tmp_path / name).touch()
    group = zarr.open_group(tmp_path / "g.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=np.ones((1, 2, 1, 3, 4), np.uint8))
    group.attrs["multiscales"] = [{"datasets": [{"path": "0"}]}]
    found = [image.path.name for image in new_images(tmp_path)]
    assert found == ["a.hdr", "b.dmt", "c.bsp", "d.dat", "e.0", "f.npy", "g.zarr"]
    (one,) = new_images(tmp_path / "g.zarr")
    assert one.open().shape == (3, 4, 2)
