"""Pictures as tools write them: each kind, with each compression, gives the numbers that were written, or one line."""

import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from compseg.errors import CompsegError
from compseg.sources import on_disk, pictures
from compseg.sources.pictures import Pixels
from compseg.sources.readers import read_file, read_image, read_labels, read_mask, read_picture

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (16, 24), dtype=np.uint8)
DEEP = RNG.integers(0, 4096, (16, 24, 3)).astype(np.uint16)  # 12 bits of a camera in 16 bits
COLOUR = RNG.integers(0, 256, (16, 24, 3), dtype=np.uint8)
OPACITY = RNG.integers(0, 256, (16, 24, 1), dtype=np.uint8)
BANDS = RNG.random((16, 24, 5)).astype(np.float32)
SIGNED = RNG.integers(-500, 500, (16, 24)).astype(np.int16)
BILEVEL = GREY > 128
PALETTE = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [7, 8, 9]], np.uint8)
INDEX = (GREY % 4).astype(np.uint8)
COLOUR_MAP = np.zeros((3, 256), np.uint16)
COLOUR_MAP[:, :4] = PALETTE.T.astype(np.uint16) * 257


def pages(first, second):
    """Two images in one file: the arrays and their options."""

    def save(path, _, **options):
        with tifffile.TiffWriter(path) as file:
            for array, more in (first, second):
                file.write(array, photometric="rgb", metadata=None, **more, **options)

    return save


REDUCED = (COLOUR[::2, ::2], {"subfiletype": 1})
# Kind: how it is written, what is written, what is read.
KINDS = {
    "8 bit grey": ({"photometric": "minisblack"}, GREY, GREY),
    "8 bit colour": ({"photometric": "rgb"}, COLOUR, COLOUR),
    "16 bit colour": ({"photometric": "rgb"}, DEEP, DEEP),
    "16 bit grey": ({"photometric": "minisblack"}, DEEP[..., 0], DEEP[..., 0]),
    "32 bit grey": ({"photometric": "minisblack"}, GREY.astype(np.uint32) * 70000, GREY.astype(np.uint32) * 70000),
    "signed": ({"photometric": "minisblack"}, SIGNED, SIGNED),
    "float": ({"photometric": "minisblack"}, BANDS[..., 0], BANDS[..., 0]),
    "double": ({"photometric": "minisblack"}, BANDS[..., 0].astype(float), BANDS[..., 0]),
    "half": ({"photometric": "minisblack"}, BANDS[..., 0].astype(np.float16), BANDS[..., 0].astype(np.float16)),
    "white is zero": ({"photometric": "miniswhite"}, GREY, 255 - GREY),
    "white is zero, 16 bit": ({"photometric": "miniswhite"}, DEEP[..., 0], 65535 - DEEP[..., 0]),
    "1 bit": ({"photometric": "minisblack"}, BILEVEL, BILEVEL * 255),
    "1 bit, white is zero": ({"photometric": "miniswhite"}, BILEVEL, ~BILEVEL * 255),
    "palette": ({"photometric": "palette", "colormap": COLOUR_MAP}, INDEX, PALETTE[INDEX]),
    "palette of 8 bits": ({"photometric": "palette", "colormap": COLOUR_MAP // 257}, INDEX, PALETTE[INDEX]),
    "colour and alpha": (
        {"photometric": "rgb", "extrasamples": ["unassalpha"]},
        np.concatenate([COLOUR, OPACITY], axis=2),
        COLOUR,
    ),
    "colour and infrared": (
        {"photometric": "rgb", "extrasamples": ["unspecified"]},
        np.concatenate([COLOUR, OPACITY], axis=2),
        np.concatenate([COLOUR, OPACITY], axis=2),
    ),
    "grey and alpha": (
        {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unassalpha"]},
        np.stack([GREY, OPACITY[..., 0]], axis=2),
        GREY,
    ),
    "colour by planes": (
        {"photometric": "rgb", "planarconfig": "separate"},
        np.moveaxis(DEEP, -1, 0),
        DEEP,
    ),
    "bands by pixel": ({"photometric": "minisblack", "planarconfig": "contig"}, BANDS, BANDS),
    "bands by planes": ({"photometric": "minisblack", "planarconfig": "separate"}, np.moveaxis(BANDS, -1, 0), BANDS),
    "bands by pages": ({"photometric": "minisblack"}, np.moveaxis(BANDS, -1, 0), BANDS),
    "tiles": ({"photometric": "rgb", "tile": (16, 16)}, DEEP, DEEP),
    "strips": ({"photometric": "rgb", "rowsperstrip": 5}, DEEP, DEEP),
    "BigTIFF": ({"photometric": "rgb", "bigtiff": True}, DEEP, DEEP),
    "big-endian": ({"photometric": "rgb", "byteorder": ">"}, DEEP, DEEP),
    "ImageJ's inverted look-up table": ({"imagej": True, "photometric": "miniswhite"}, GREY, GREY),
    "thumbnail after": (pages((COLOUR, {}), REDUCED), COLOUR, COLOUR),
    "thumbnail before": (pages(REDUCED, (COLOUR, {})), COLOUR, COLOUR),
    "image below its thumbnail": (
        pages((COLOUR[::2, ::2], {"subfiletype": 1, "subifds": 1}), (COLOUR, {})),
        COLOUR,
        COLOUR,
    ),
    "pyramid": (pages((COLOUR, {"subifds": 1}), REDUCED), COLOUR, COLOUR),
}
COMPRESSIONS = [None, "lzw", "deflate", "packbits", "zstd"]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(("written", "array", "expected"), KINDS.values(), ids=KINDS)
def test_a_tiff_is_read_alike_whatever_its_compression(tmp_path, written, array, expected, compression):
    save = (
        written if callable(written) else lambda path, array, **rest: tifffile.imwrite(path, array, **written, **rest)
    )
    if isinstance(written, dict) and written.get("imagej"):
        compression = None  # ImageJ writes no other
    save(tmp_path / "a.tif", array, compression=compression)
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image, expected if expected.ndim == 3 else expected[..., None])
    assert image.dtype.newbyteorder("=") == (np.uint8 if array.dtype == bool else array.dtype)
    np.testing.assert_array_equal(read_file(tmp_path / "a.tif", mapped=True).image, image)  # what prediction reads


def test_a_mark_for_no_data_that_no_pixel_has(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY, extratags=[(42113, 2, 0, "-9999", True)])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 0], GREY)


@pytest.mark.parametrize("predicted", [DEEP, BANDS[..., 0]])
@pytest.mark.parametrize("compression", ["lzw", "deflate", "zstd"])
def test_predictors(tmp_path, predicted, compression):
    tifffile.imwrite(tmp_path / "a.tif", predicted, compression=compression, predictor=True)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").squeeze(), predicted)


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
def test_jpeg_in_a_tiff_is_lossy_and_no_mask(tmp_path, photometric):
    smooth = np.repeat(np.repeat(COLOUR[:2, :2], 16, axis=0), 16, axis=1)
    picture = Image.fromarray(smooth)
    (picture.convert("YCbCr") if photometric == "ycbcr" else picture).save(
        tmp_path / "a.tif", compression="jpeg", quality=95
    )
    np.testing.assert_allclose(read_image(tmp_path / "a.tif").astype(int), smooth, atol=4)
    with pytest.raises(CompsegError, match="JPEG blurs the edges of a mask"):
        read_mask(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("suffix", ["tif", "lzw.tif", "png", "jpg"])
def test_orientation_is_applied(tmp_path, orientation, suffix):
    array, path = np.repeat(np.repeat(COLOUR[:3, :4], 8, axis=0), 8, axis=1), tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[274] = orientation
    if suffix.endswith("tif"):
        tag = [(274, 3, 1, orientation, True)]
        tifffile.imwrite(path, array, photometric="rgb", extratags=tag, compression="lzw" if "lzw" in suffix else None)
    else:
        Image.fromarray(array).save(path, exif=exif, **({"quality": 95, "subsampling": 0} if suffix == "jpg" else {}))
    picture = Image.fromarray(array)
    picture.getexif()[274] = orientation
    expected = np.asarray(ImageOps.exif_transpose(picture))
    image = read_image(path)
    assert image.shape == expected.shape
    np.testing.assert_allclose(image.astype(int), expected, atol=4 if suffix == "jpg" else 0)
    np.testing.assert_array_equal(read_picture(path), image)


def save_tiff(**options):
    return lambda path: tifffile.imwrite(path, **options)


def save_pillow(picture, **options):
    return lambda path: picture.save(path, **options)


def save_bytes(content):
    return lambda path: path.write_bytes(content)


def save_cut(path):
    tifffile.imwrite(path, DEEP)
    path.write_bytes(path.read_bytes()[:-200])


def save_edited(tag, value, rowsperstrip=16):
    """An uncompressed TIFF in which one number of a tag is another."""

    def save(path):
        tifffile.imwrite(path, GREY, rowsperstrip=rowsperstrip)
        content = bytearray(path.read_bytes())
        with tifffile.TiffFile(path) as file:
            place = file.pages.first.tags[tag].valueoffset
        content[place : place + 4] = struct.pack("<I", value)
        path.write_bytes(content)

    return save


def broken_chain(second):
    """Two pages, of which the first says that the second is somewhere else."""

    def save(path):
        tifffile.imwrite(path, np.stack([GREY, GREY]), metadata=None, photometric="minisblack")
        content = bytearray(path.read_bytes())
        place = int.from_bytes(content[4:8], "little")
        place += 2 + 12 * int.from_bytes(content[place : place + 2], "little")
        content[place : place + 4] = struct.pack("<I", second)
        path.write_bytes(content)

    return save


def names_another_file(path):
    """An OME-TIFF whose second channel is in a file beside it, which holds other things."""
    tifffile.imwrite(path.with_name("b.ome.tif"), DEEP[..., 0], metadata={"axes": "YX"})
    with tifffile.TiffFile(path.with_name("b.ome.tif")) as file:
        uuid = file.ome_metadata.split('UUID="')[1].split('"')[0]
    tifffile.imwrite(path, np.stack([DEEP[..., 1], DEEP[..., 1]]), metadata={"axes": "CYX"}, photometric="minisblack")
    with tifffile.TiffFile(path) as file:
        text = file.ome_metadata
    own = '<TiffData IFD="0" PlaneCount="2"/>'
    assert own in text
    other = f'<TiffData FirstC="1" IFD="0"><UUID FileName="b.ome.tif">{uuid}</UUID></TiffData>'
    tifffile.imwrite(path, DEEP[..., 1], description=text.replace(own, f'<TiffData IFD="0"/>{other}'), metadata=None)


def two_images(path):
    with tifffile.TiffWriter(path) as file:
        file.write(GREY, metadata=None)
        file.write(GREY[:8], metadata=None)


def two_meanings(path):
    with tifffile.TiffWriter(path) as file:
        file.write(GREY, photometric="minisblack", metadata=None)
        file.write(GREY, photometric="miniswhite", metadata=None)


CMYK = Image.fromarray(COLOUR).convert("CMYK")
REFUSED = {
    "CMYK TIFF": ("a.tif", save_pillow(CMYK), "SEPARATED colours are not read exactly; save it as RGB or grey"),
    "CMYK TIFF, LZW": ("a.tif", save_pillow(CMYK, compression="tiff_lzw"), "SEPARATED colours"),
    "CMYK JPEG": ("a.jpg", save_pillow(CMYK), "CMYK colours are not read exactly; save it as RGB or grey"),
    "YCbCr TIFF": ("a.tif", save_pillow(Image.fromarray(COLOUR).convert("YCbCr")), "YCBCR colours"),
    "Lab TIFF": ("a.tif", save_tiff(data=COLOUR, photometric="cielab"), "CIELAB colours"),
    "camera's raw data": ("a.tif", save_tiff(data=GREY, photometric="cfa"), "CFA colours"),
    "white is zero, float": ("a.tif", save_tiff(data=BANDS[..., 0], photometric="miniswhite"), "has no meaning"),
    "no data": (
        "a.tif",
        save_tiff(data=SIGNED, extratags=[(42113, 2, 0, str(SIGNED[0, 0]), True)]),
        "the file's mark for 'no data'",
    ),
    "no data, not of its type": (
        "a.tif",
        save_tiff(data=SIGNED, extratags=[(42113, 2, 0, "none", True)]),
        "cannot be read as .tif",
    ),
    "two images": ("a.tif", two_images, r"2 images in one file \(\(16, 24\), \(8, 24\)\); save the one to read"),
    "two meanings": ("a.tif", two_meanings, "2 images in one file"),
    "only a thumbnail": ("a.tif", save_tiff(data=GREY, subfiletype=1, metadata=None), "0 images in one file"),
    "stack of colours": ("a.tif", save_tiff(data=np.stack([COLOUR, COLOUR])), "one channel axis"),
    "cut": ("a.tif", save_cut, "cannot be read as .tif"),
    "strip beyond the end": ("a.tif", save_edited(273, 10**6), "cannot be read as .tif"),
    "false height": ("a.tif", save_edited(257, 2**26, rowsperstrip=1), "incorrect StripByteCounts count"),
    "strips that are missing": ("a.tif", save_edited(273, 0), "a part of its pixels is missing"),
    "pages that are missing": ("a.tif", broken_chain(10**6), "cannot be read as .tif"),
    "pages in a circle": ("a.tif", broken_chain(8), "its pages form a circle"),
    "OME that names another file": ("a.ome.tif", names_another_file, "its OME description names other files"),
    "complex": ("a.tif", save_tiff(data=GREY * 1j), "real numbers"),
    "animated PNG": (
        "a.png",
        save_pillow(Image.fromarray(GREY), save_all=True, append_images=[Image.fromarray(255 - GREY)]),
        "2 pictures in one file",
    ),
    "TIFF called PNG": ("a.png", save_tiff(data=DEEP), "cannot be read as .png"),
    "PNG called TIFF": ("a.tif", save_bytes(imagecodecs.png_encode(GREY)), "cannot be read as .tif"),
}


@pytest.mark.parametrize(("name", "save", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_exact_is_refused(tmp_path, name, save, words):
    save(tmp_path / name)
    with pytest.raises(CompsegError, match=words) as raised:
        read_image(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_an_index_beyond_the_palette_is_damage():
    for values in (INDEX, INDEX.astype(float)):
        with pytest.raises(ValueError, match="index 3 of a palette of 2 colours"):
            Pixels(values, PALETTE[:2])


def save_png(array, **options):
    return lambda path: Image.fromarray(array).save(path, **options)


def save_deep_png(array):
    return lambda path: path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(array)))


def save_palette(**options):
    def save(path):
        picture = Image.frombytes("P", INDEX.shape[::-1], INDEX.tobytes())
        picture.putpalette(PALETTE.ravel().tolist())
        picture.save(path, **options)

    return save


DEEP4 = np.concatenate([DEEP, DEEP[..., :1]], axis=2)
PLAIN = {
    "grey": ("a.png", save_png(GREY), GREY),
    "colour": ("a.png", save_png(COLOUR), COLOUR),
    "grey, 16 bit": ("a.png", save_png(DEEP[..., 0]), DEEP[..., 0]),
    "colour, 16 bit": ("a.png", save_deep_png(DEEP), DEEP),
    "colour and alpha, 16 bit": ("a.png", save_deep_png(DEEP4), DEEP),
    "grey and alpha, 16 bit": ("a.png", save_deep_png(DEEP[..., :2]), DEEP[..., 0]),
    "grey and alpha": ("a.png", save_png(np.stack([GREY, GREY.T.reshape(16, 24)], axis=2)), GREY),
    "colour and alpha": ("a.png", save_png(np.concatenate([COLOUR, OPACITY], axis=2)), COLOUR),
    "1 bit": ("a.png", save_png(BILEVEL), BILEVEL * 255),
    "palette": ("a.png", save_palette(), PALETTE[INDEX]),
    "palette with a transparent colour": ("a.png", save_palette(transparency=2), PALETTE[INDEX]),
    "colour with a transparent colour": ("a.png", save_png(COLOUR, transparency=(1, 2, 3)), COLOUR),
    "BMP": ("a.bmp", save_png(COLOUR), COLOUR),
    "BMP, grey": ("a.bmp", save_png(GREY), GREY),
    "BMP, 1 bit": ("a.bmp", save_png(BILEVEL), BILEVEL * 255),
    "BMP, palette": ("a.bmp", save_palette(), PALETTE[INDEX]),
}


@pytest.mark.parametrize(("name", "save", "expected"), PLAIN.values(), ids=PLAIN)
def test_other_pictures(tmp_path, name, save, expected):
    save(tmp_path / name)
    image = read_image(tmp_path / name)
    np.testing.assert_array_equal(image, expected if expected.ndim == 3 else expected[..., None])
    assert image.dtype == (np.uint16 if expected.dtype == np.uint16 else np.uint8)


def test_a_picture_for_people_of_16_bits_is_not_dark(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", DEEP, photometric="rgb")
    picture = read_picture(tmp_path / "a.tif")
    assert picture.dtype == np.uint8
    np.testing.assert_allclose(picture, DEEP * (255 / DEEP.max()), atol=0.5)
    tifffile.imwrite(tmp_path / "b.tif", BANDS, photometric="minisblack", planarconfig="contig")
    with pytest.raises(CompsegError, match="5 channels; a picture for people has 1"):
        read_picture(tmp_path / "b.tif")


MEMORY = r"2000000, 2000000.* GiB of memory, .* are free"


@pytest.mark.parametrize(("suffix", "words"), [("tif", "StripByteCounts count"), ("png", MEMORY), ("bmp", MEMORY)])
def test_sizes_are_looked_at_before_memory_is_taken(tmp_path, suffix, words):
    path = tmp_path / f"a.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(path, GREY, rowsperstrip=16)
        content = bytearray(path.read_bytes())
        with tifffile.TiffFile(path) as file:
            for tag in (256, 257):
                content[(place := file.pages.first.tags[tag].valueoffset) : place + 4] = struct.pack("<I", 2_000_000)
    elif suffix == "png":
        save_png(GREY)(path)
        content = bytearray(path.read_bytes())
        content[16:24] = struct.pack(">II", 2_000_000, 2_000_000)
        content[29:33] = imagecodecs.zlib_crc32(bytes(content[12:29])).to_bytes(4, "big")
    else:
        save_png(COLOUR)(path)
        content = bytearray(path.read_bytes())
        content[18:26] = struct.pack("<ii", 2_000_000, 2_000_000)
    path.write_bytes(content)
    with pytest.raises(CompsegError, match=words):
        read_image(path)


def test_a_large_tiff_is_weighed_before_all_of_it_is_read(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", GREY)
    monkeypatch.setattr(pictures, "LARGE", 0)
    monkeypatch.setattr(on_disk, "require_memory", lambda path, shape, _: pytest.fail(f"{path.name} {shape}"))
    with pytest.raises(pytest.fail.Exception, match=r"a.tif .*1\)"):
        read_image(tmp_path / "a.tif")


LABELS = np.repeat(np.repeat(np.array([[0, 1], [2, 0]]), 3, axis=0), 4, axis=1)
INSIDE = LABELS != 0


def save_labels(labels, **options):
    return lambda path: np.save(path, labels, **options)


def save_picture_mask(grey, alpha=None):
    channels = [np.where(grey, 255, 0).astype(np.uint8)] * (3 if alpha is not None else 1)
    array = channels[0] if alpha is None else np.stack([*channels, np.where(alpha, 255, 0).astype(np.uint8)], axis=2)
    return lambda path: Image.fromarray(array).save(path)


def save_palette_mask(palette, suffix="png", **options):
    def save(path):
        picture = Image.frombytes("P", LABELS.shape[::-1], LABELS.astype(np.uint8).tobytes())
        picture.putpalette([value for colour in palette for value in colour])
        picture.save(path, **options)

    return save


BLACK, WHITE, RED, BLUE = (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255)
TWO_COLOURS = np.zeros((*LABELS.shape, 3), np.uint8)
TWO_COLOURS[LABELS == 1], TWO_COLOURS[LABELS == 2] = RED, BLUE

# File, how it is written, `inside`, the mask or the words of the refusal.
MASKS = {
    "bool": ("m.npy", save_labels(INSIDE), None, INSIDE),
    "0 and 1": ("m.npy", save_labels(INSIDE.astype(float)), None, INSIDE),
    "0 and .5": ("m.npy", save_labels(INSIDE / 2), None, INSIDE),
    "0 and 255": ("m.png", save_picture_mask(INSIDE), None, INSIDE),
    "all 0": ("m.npy", save_labels(LABELS * 0), None, LABELS > 5),
    "all 1": ("m.npy", save_labels(LABELS * 0 + 1), None, LABELS > -1),
    "three values": ("m.npy", save_labels(LABELS), None, INSIDE),
    "three values, one of them asked for": ("m.npy", save_labels(LABELS), [2], LABELS == 2),
    "1 and 2": ("m.npy", save_labels(1 + INSIDE), None, "no pixel is 0, so 1 and 2 cannot be told apart"),
    "1 and 2, one asked for": ("m.npy", save_labels(1 + INSIDE), [2], INSIDE),
    "NaN outside": ("m.npy", save_labels(np.where(INSIDE, 1, np.nan)), None, "NaN or infinite values in a mask"),
    "NaN, one asked for": ("m.npy", save_labels(np.where(INSIDE, 1, np.nan)), [1], "NaN or infinite"),
    "-1 outside": ("m.npy", save_labels(np.where(INSIDE, 1, -1)), None, "-1 in a mask"),
    "-1, one asked for": ("m.npy", save_labels(np.where(INSIDE, 1, -1)), [1], INSIDE),
    "probabilities": ("m.npy", save_labels(LABELS / 3), None, "so probabilities; save 0 and 1, cut at a threshold"),
    "blurred": ("m.png", save_png(GREY), None, "are more than a mask has"),
    "numbered regions": ("m.npy", save_labels(np.arange(12).reshape(3, 4)), None, "12 values .* are more than a mask"),
    "JPEG": ("m.jpg", save_png(GREY), None, "JPEG blurs the edges"),
    "JPEG called PNG": ("m.png", save_png(GREY, format="jpeg"), None, "JPEG blurs the edges"),
    "colours": ("m.png", save_png(TWO_COLOURS), None, INSIDE),
    "a colour asked for": ("m.png", save_png(TWO_COLOURS), [0x0000FF], LABELS == 2),
    "dark blue": ("m.png", save_png(TWO_COLOURS // 255), None, INSIDE),
    "white on transparent": ("m.png", save_picture_mask(LABELS > -1, INSIDE), None, INSIDE),
    "white on black, opaque": ("m.png", save_picture_mask(INSIDE, LABELS > -1), None, INSIDE),
    "black on transparent": ("m.png", save_picture_mask(LABELS < 0, INSIDE), None, "black on a transparent ground"),
    "palette": ("m.png", save_palette_mask([BLACK, RED, BLUE]), None, INSIDE),
    "palette, one asked for": ("m.png", save_palette_mask([BLACK, RED, BLUE]), [2], LABELS == 2),
    "palette on white": ("m.png", save_palette_mask([WHITE, BLACK, RED]), None, "index 0 of its palette is not black"),
    "palette on transparent": ("m.png", save_palette_mask([WHITE, RED, BLUE], transparency=0), None, INSIDE),
    "TIFF palette": ("m.tif", save_palette_mask([BLACK, RED, BLUE], compression="tiff_lzw"), None, INSIDE),
    "channels": ("m.npy", save_labels(BANDS), None, "expected a mask"),
}
for compression in (None, "lzw", "deflate"):
    for photometric, stored in (("minisblack", INSIDE), ("miniswhite", ~INSIDE)):
        MASKS[f"TIFF {photometric} {compression}"] = (
            "m.tif",
            save_tiff(data=stored.astype(np.uint8) * 255, photometric=photometric, compression=compression),
            None,
            INSIDE,
        )
if tifffile.COMPRESSION.CCITT_T6 in tifffile.TIFF.DECOMPRESSORS:  # not in 2025
    MASKS["TIFF group 4"] = ("m.tif", save_pillow(Image.fromarray(INSIDE), compression="group4"), None, INSIDE)


@pytest.mark.parametrize(("name", "save", "inside", "expected"), MASKS.values(), ids=MASKS)
def test_masks_as_tools_write_them(tmp_path, name, save, inside, expected):
    save(tmp_path / name)
    if isinstance(expected, str):
        with pytest.raises(CompsegError, match=expected) as raised:
            read_mask(tmp_path / name, inside=inside)
        assert "\n" not in str(raised.value)
        assert name in str(raised.value)
    else:
        np.testing.assert_array_equal(read_mask(tmp_path / name, inside=inside), expected)


def test_labels_of_grey_in_colour_are_grey(tmp_path):
    save_png(np.repeat((LABELS * 100).astype(np.uint8)[..., None], 3, axis=2))(tmp_path / "m.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "m.png"), LABELS * 100)
