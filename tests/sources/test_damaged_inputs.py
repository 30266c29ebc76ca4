"""Files of every kind with random damage: read, or refused in one line; no traceback, and nothing else on stderr."""

import random
import shutil
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image

from compseg.errors import CompsegError
from compseg.sources.readers import READERS, read_file, read_image, read_mask, read_picture, reader_of

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)
CUBE = RNG.random((24, 32, 5)).astype(np.float32)
COLOURS = np.zeros((3, 256), np.uint16)


def tiff(**options):
    return lambda path: tifffile.imwrite(path, COLOUR, photometric="rgb", **options)


def mat73(path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("cube", data=CUBE, compression="gzip")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


SOUND = {
    "raw.tif": tiff(),
    "lzw.tif": tiff(compression="lzw"),
    "deflate.tif": tiff(compression="deflate", predictor=True),
    "zstd.tif": tiff(compression="zstd"),
    "packbits.tif": tiff(compression="packbits"),
    "jpeg.tif": tiff(compression="jpeg"),
    "tiles.tif": tiff(tile=(16, 16)),
    "palette.tif": lambda path: tifffile.imwrite(path, COLOUR[..., 0], photometric="palette", colormap=COLOURS),
    "colour.png": lambda path: Image.fromarray(COLOUR).save(path),
    "palette.png": lambda path: Image.fromarray(COLOUR).quantize(16).save(path, transparency=3),
    "deep.png": lambda path: path.write_bytes(imagecodecs.png_encode(COLOUR.astype(np.uint16) * 200)),
    "a.jpg": lambda path: Image.fromarray(COLOUR).save(path),
    "a.bmp": lambda path: Image.fromarray(COLOUR).save(path),
    "a.npy": lambda path: np.save(path, CUBE),
    "a.npz": lambda path: np.savez_compressed(path, cube=CUBE),
    "a.mat": lambda path: scipy.io.savemat(path, {"cube": CUBE}),
    "packed.mat": lambda path: scipy.io.savemat(path, {"cube": CUBE}, do_compression=True),
    "hdf5.mat": mat73,
}


DATA = Path(__file__).parents[3] / "shared/data/instrument_files"
# A file of each reader of instruments, and what is damaged: it or one that belongs to it.
INSTRUMENTS = (
    ("agilent/5_mosaic_agg1024.dmt", "5_Mosaic_agg1024_0000_0001.dmd"),
    ("agilent/5_mosaic_agg1024.dmt", "5_Mosaic_agg1024.dms"),
    ("agilent/4_noimage_agg256.bsp", ""),
    ("agilent/4_noimage_agg256.seq", "4_noimage_agg256.dat"),
    ("small_Omnic.map", ""),
    ("renishaw/renishaw_test_map.wdf", ""),
    ("renishaw/renishaw_test_linescan.wdf", ""),
    ("bruker_opus/BF_lo_01_soil_cal.1", ""),
    ("perkinelmer/4x4_pixel_PE_image.fsm", ""),
    ("witec/Si-data.WIP", ""),
    ("photothermal/Hyper_Sample.ptir", ""),
    ("cytospec/cytospec.mat", ""),
    ("envi/cubus_gamsberg_subset.hdr", ""),
    ("envi/derived_bip_be_f4.hdr", "derived_bip_be_f4.img"),
    ("hdf5/small_diamond_nxs.nxs", ""),
    ("ome_zarr/v1", "0/.zarray"),
    ("ome_zarr/v1", ".zattrs"),
)


def test_a_file_of_every_reader_is_damaged():
    """So that a reader that is added is under this test, too."""
    damaged_ones = [*SOUND, *(name if Path(name).suffix else f"{name}.zarr" for name, _ in INSTRUMENTS)]
    known = {reader_of(Path(f"a{suffix}")) for suffix in (*READERS, ".0")}
    assert known == {reader_of(Path(name)) for name in damaged_ones}


def copied(tmp_path, name, part):
    """A copy of an instrument's file with what belongs to it; its path, and that of the part to damage."""
    source = DATA / name
    if source.is_dir():
        path = Path(shutil.copytree(source, tmp_path / f"{part.replace('/', '_')}.zarr"))
        return path, path / part
    folder = tmp_path / name.replace("/", "_") / (part or "itself")
    folder.mkdir(parents=True)
    for file in source.parent.iterdir():
        if file.is_file() and file.name.casefold().startswith(source.stem[:9].casefold()):
            shutil.copy(file, folder)
    return folder / source.name, folder / (part or source.name)


def read_or_refused(path):
    """The values that are read; None where the file is refused, which is in one line."""
    try:
        return np.array(read_file(path, mapped=True).image)
    except CompsegError as error:
        said = str(error)
    assert "\n" not in said
    assert str(path.parent) in said
    return None


def read_damaged_instruments(tmp_path, rounds):
    """Read files of instruments, each damaged in a number of ways; how many were read, and how many refused."""
    ends = {"read": 0, "refused": 0}
    for name, part in INSTRUMENTS:
        (path, target), chance = copied(tmp_path, name, part), random.Random(name + part)
        sound, shape = target.read_bytes(), read_file(path).image.shape
        for _ in range(rounds):
            target.write_bytes(damaged(sound, chance))
            found = read_or_refused(path)
            ends["refused" if found is None else "read"] += 1
            # A header may say another size, but never one that the file does not hold.
            assert found is None or (found.ndim == 3 and found.size <= 64 * np.prod(shape))
    return ends


@pytest.mark.realdata
@pytest.mark.skipif(not DATA.is_dir(), reason="the instrument files are not beside the checkout")
def test_a_file_that_was_cut_is_refused_or_read_as_it_was(tmp_path):
    ends = {"read": [], "refused": []}
    for name, part in INSTRUMENTS:
        path, target = copied(tmp_path, name, part)
        sound, values = target.read_bytes(), np.array(read_file(path).image)
        for share in (0.05, 0.5, 0.9, 0.995):
            target.write_bytes(sound[: int(share * len(sound))])
            found = read_or_refused(path)
            ends["refused" if found is None else "read"].append((name, share))
            if found is not None:
                np.testing.assert_array_equal(found, values)
    assert len(ends["refused"]) > len(ends["read"]), ends


@pytest.mark.realdata
@pytest.mark.skipif(not DATA.is_dir(), reason="the instrument files are not beside the checkout")
@pytest.mark.parametrize("rounds", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_damaged_files_of_instruments_are_read_or_refused_in_one_line(tmp_path, capfd, rounds):
    ends = read_damaged_instruments(tmp_path, rounds)
    assert sum(ends.values()) == rounds * len(INSTRUMENTS)
    assert ends["refused"] > 0
    assert "Traceback" not in capfd.readouterr().err


def damaged(content, chance):
    """The same bytes with one kind of damage."""
    content, place = bytearray(content), chance.randrange(len(content))
    match chance.randrange(5):
        case 0:
            content[place] ^= 1 << chance.randrange(8)
        case 1:  # where most formats describe themselves
            for _ in range(3):
                content[chance.randrange(min(len(content), 600))] = chance.randrange(256)
        case 2:
            del content[place:]
        case 3:
            content[place : place + 100] = bytes(len(content[place : place + 100]))
        case 4:
            content[place:place] = chance.randbytes(9)
    return bytes(content)


@pytest.mark.parametrize(("name", "save"), SOUND.items(), ids=SOUND)
def test_damage_is_read_or_refused_in_one_line(tmp_path, capfd, name, save):
    path, chance = tmp_path / name, random.Random(name)
    save(path)
    sound = path.read_bytes()
    for _ in range(12):
        path.write_bytes(damaged(sound, chance))
        for read in (read_image, read_mask, read_picture, partial(read_file, mapped=True)):
            try:
                read(path)
            except CompsegError as error:
                assert "\n" not in str(error)  # noqa: PT017
                assert str(path) in str(error)  # noqa: PT017
    assert capfd.readouterr().err == ""
