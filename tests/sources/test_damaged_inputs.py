"""Files of every kind with random damage: read, or refused in one line; no traceback, and nothing else on stderr."""

import random
from functools import partial

import imagecodecs
import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image

from compseg.errors import CompsegError
from compseg.sources.readers import read_file, read_image, read_mask, read_picture

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
