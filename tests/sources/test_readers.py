import builtins
import errno

import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image

from compseg.errors import CompsegError
from compseg.sources.readers import READERS, read_image, read_mask, read_picture

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
RGBA = RNG.integers(0, 256, (5, 7, 4), dtype=np.uint8)
CUBE = RNG.random((5, 7, 9)).astype(np.float32)


def save_picture(path, array, **options):
    Image.fromarray(array).save(path, **options)


def save_tiff(**options):
    return lambda path, array: tifffile.imwrite(path, array, **options)


PLAIN = {
    "npy": ("a.npy", lambda path, array: np.save(path, array), CUBE),
    "npy grey": ("a.npy", lambda path, array: np.save(path, array), GREY),
    "npy bool": ("a.npy", lambda path, array: np.save(path, array), GREY > 99),
    "npz": ("a.npz", lambda path, array: np.savez(path, cube=array), CUBE),
    "mat": ("a.mat", lambda path, array: scipy.io.savemat(path, {"cube": array, "note": "text"}), CUBE),
    "png grey": ("a.png", save_picture, GREY),
    "png 16 bit": ("a.png", save_picture, GREY16),
    "png colour": ("a.PNG", save_picture, RGB),
    "bmp": ("a.bmp", save_picture, RGB),
    "tiff grey": ("a.tif", save_tiff(), GREY),
    "tiff colour 16 bit": ("a.tiff", save_tiff(photometric="rgb"), RGB.astype(np.uint16) * 200),
    "tiff bands": ("a.tif", save_tiff(photometric="minisblack", planarconfig="contig"), CUBE),
    "tiff 4 bands": ("a.tif", save_tiff(photometric="minisblack", planarconfig="contig"), CUBE[..., :4]),
    "tiff lzw": ("a.tif", lambda path, array: save_picture(path, array, compression="tiff_lzw"), GREY),
}


@pytest.mark.parametrize(("name", "save", "array"), PLAIN.values(), ids=PLAIN)
def test_values_come_back_exactly(tmp_path, name, save, array):
    save(tmp_path / name, array)
    image = read_image(tmp_path / name)
    np.testing.assert_array_equal(image, array if array.ndim == 3 else array[..., None])
    assert image.dtype.kind in "uif"


STACKS = {
    "pages": ("a.tif", save_tiff(photometric="minisblack")),
    "pages without metadata": ("a.tif", save_tiff(photometric="minisblack", metadata=None)),
    "planes": ("a.tif", save_tiff(photometric="minisblack", planarconfig="separate")),
    "ome": ("a.ome.tif", save_tiff(photometric="minisblack", metadata={"axes": "CYX"})),
}


@pytest.mark.parametrize(("name", "save"), STACKS.values(), ids=STACKS)
def test_pages_and_planes_of_a_tiff_are_channels(tmp_path, name, save):
    save(tmp_path / name, np.moveaxis(CUBE, -1, 0))
    np.testing.assert_array_equal(read_image(tmp_path / name), CUBE)


def test_pages_of_a_compressed_tiff_are_channels(tmp_path):
    pages = [Image.fromarray(GREY), Image.fromarray(GREY.T.copy().reshape(5, 7))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    expected = np.stack([np.asarray(page) for page in pages], axis=-1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), expected)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_transparency_is_dropped(tmp_path, name):
    if name == "a.tif":
        tifffile.imwrite(tmp_path / name, RGBA, photometric="rgb", extrasamples=["unassalpha"])
    else:
        save_picture(tmp_path / name, RGBA)
    np.testing.assert_array_equal(read_image(tmp_path / name), RGBA[..., :3])


def test_palette_becomes_colour_and_one_bit_becomes_grey(tmp_path):
    Image.fromarray(RGB).quantize(256).save(tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.mode == "P"
        expected = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), expected)
    Image.fromarray(GREY > 99).save(tmp_path / "1.png")
    np.testing.assert_array_equal(read_image(tmp_path / "1.png")[..., 0], np.where(GREY > 99, 255, 0))


def test_jpeg(tmp_path):
    smooth = np.full((16, 24, 3), (200, 100, 50), np.uint8)
    save_picture(tmp_path / "a.jpg", smooth, quality=95)
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == smooth.shape
    np.testing.assert_allclose(image.astype(int), smooth, atol=4)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.mat"])
def test_channels_first(tmp_path, name):
    first = np.moveaxis(CUBE, -1, 0)
    save = {"a.npy": np.save, "a.npz": np.savez, "a.mat": lambda p, a: scipy.io.savemat(p, {"x": a})}[name]
    save(tmp_path / name, first)
    np.testing.assert_array_equal(read_image(tmp_path / name, channels_first=True), CUBE)


@pytest.mark.parametrize("name", ["a.npz", "a.mat"])
def test_key_chooses_among_variables(tmp_path, name):
    save = (lambda p, **a: np.savez(p, **a)) if name == "a.npz" else (lambda p, **a: scipy.io.savemat(p, a))
    save(tmp_path / name, cube=CUBE, mask=GREY // 128)
    np.testing.assert_array_equal(read_image(tmp_path / name, "cube"), CUBE)
    np.testing.assert_array_equal(read_mask(tmp_path / name, "mask"), GREY > 127)
    with pytest.raises(CompsegError, match=r"which variable\? it holds cube, mask; set source\.keys\.image"):
        read_image(tmp_path / name)
    with pytest.raises(CompsegError, match="no variable cubes; it holds cube, mask"):
        read_image(tmp_path / name, "cubes")


def test_matlab_73(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["cube"] = CUBE.T
    with (tmp_path / "a.mat").open("r+b") as file:  # the header that MATLAB puts before the HDF5
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    np.testing.assert_array_equal(read_image(tmp_path / "a.mat"), CUBE)


def test_matlab_73_without_h5py_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400))
    genuine = builtins.__import__

    def without_h5py(name, *args, **kwargs):
        if name == "h5py":
            raise ImportError(name)
        return genuine(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_h5py)
    with pytest.raises(CompsegError, match=r"pip install 'compseg\[mat73\]'"):
        read_image(tmp_path / "a.mat")


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.npy", "a.npz", "a.mat", "a.tif"])
def test_masks(tmp_path, name):
    mask = (GREY > 128).astype(np.uint8) * 200
    save = {".npy": np.save, ".npz": np.savez, ".mat": lambda p, a: scipy.io.savemat(p, {"m": a})}
    save.get(name[1:], save_picture)(tmp_path / name, mask)
    read = read_mask(tmp_path / name)
    assert read.dtype == bool
    np.testing.assert_array_equal(read, GREY > 128)


def test_a_coloured_mask_counts_what_is_not_black(tmp_path):
    mask = np.zeros((5, 7, 3), np.uint8)
    mask[1, 2, 2] = 255
    save_picture(tmp_path / "m.png", mask)
    np.testing.assert_array_equal(np.argwhere(read_mask(tmp_path / "m.png")), [[1, 2]])


def test_reference_picture_is_colour(tmp_path):
    save_picture(tmp_path / "g.png", GREY)
    np.testing.assert_array_equal(read_picture(tmp_path / "g.png"), np.repeat(GREY[..., None], 3, axis=2))
    with pytest.raises(CompsegError, match="cannot be read"):
        read_picture(tmp_path / "none.png")


@pytest.mark.parametrize("suffix", sorted(READERS))
@pytest.mark.parametrize("content", [b"", b"no such format at all", b"\x89PNG\r\n\x1a\n" + bytes(60)])
def test_damaged_files_are_the_users_fault(tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(CompsegError, match=f"a{suffix}: ") as raised:
        read_image(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (CUBE[0, 0], "expected \\(H, W\\) or"),
        (CUBE[None], "expected \\(H, W\\) or"),
        (CUBE[:0], "expected \\(H, W\\) or"),
        (CUBE.astype(complex), "expected real numbers"),
        (np.array([["a"]]), "expected real numbers"),
    ],
)
def test_what_is_no_image(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(CompsegError, match=words):
        read_image(tmp_path / "a.npy")


def test_a_mask_cannot_be_a_jpeg(tmp_path):
    save_picture(tmp_path / "m.jpg", GREY)
    with pytest.raises(CompsegError, match="save it as PNG"):
        read_mask(tmp_path / "m.jpg")


def test_several_axes_and_unknown_suffixes_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 5, 7, 3), np.uint8), photometric="rgb")
    with pytest.raises(CompsegError, match="one channel axis"):
        read_image(tmp_path / "a.tif")
    with pytest.raises(CompsegError, match=r"no reader for '\.xyz'; expected one of \.npy"):
        read_image(tmp_path / "a.xyz")
    np.save(tmp_path / "m.npy", CUBE)
    with pytest.raises(CompsegError, match="expected a mask"):
        read_mask(tmp_path / "m.npy")


def test_a_png_whose_pixels_were_damaged_is_refused(tmp_path):
    """The format has checksums; the reader that decodes it does not look at those of its pixels."""
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)).save(path, compress_level=0)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CompsegError, match=r"a\.png: cannot be read"):
        read_image(path)


def test_too_many_open_files_are_no_damage(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files", "a.npz")

    np.savez(tmp_path / "a.npz", a=np.ones((4, 4)))
    monkeypatch.setattr(np, "load", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        read_image(tmp_path / "a.npz")
