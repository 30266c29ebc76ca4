"""Infrared and Raman microscopes: what openreadout reads, as images with their axis and the picture beside them.

Agilent FPA tiles and mosaics, Bruker OPUS, Thermo Omnic maps, Renishaw WiRE, PerkinElmer Spotlight and WITec projects.
Rows are from the top, see docs/reference/files.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from compseg.axes import spectral, unit_of
from compseg.errors import CompsegError
from compseg.memory import require_memory
from compseg.samples import Channels
from compseg.sources.envi import header_of, read_envi
from compseg.sources.on_disk import OnDisk
from compseg.sources.pictures import Pixels, read_pillow

INSTALL = "pip install 'compseg[instruments]'"
INSTRUMENTS = (".bsp", ".dat", ".dms", ".dmt", ".seq", ".map", ".wdf", ".fsm", ".wip")
RESULTS = ("absorbance", "reflectance", "transmittance", "log_1_r", "intensity")
AGILENT_HEADER = 255 * 4  # bytes before the numbers
CUTOUT = "IrCutout.bmp"  # Agilent's picture of the place that was measured, in the folder of the measurement
Array = NDArray[Any]


def read_instrument(path: Path, key: str | None = None) -> Pixels:
    """The spectral image of an instrument's file; a file of single spectra as one row.

    Args:
        path: The file.
        key: Name of the image, where there are several.
    """
    if path.suffix.lower() == ".dat" and header_of(path) and not path.with_suffix(".bsp").is_file():
        return read_envi(path, key)
    try:
        import openreadout
    except ImportError as error:
        raise CompsegError(f"{path}: files of instruments need openreadout; {INSTALL}") from error
    # A tile's interferograms lie beside its spectra, and people name either.
    spectra = path.with_suffix(".dat")
    place = spectra if path.suffix.lower() == ".seq" and spectra.is_file() else path
    try:
        about: Mapping[str, Any] = openreadout.info(str(place))
        with openreadout.File(str(place)) as file:
            _refuse_damaged(file)
            pixels = _image(path, file, about, key) if _spectral_images(about) else _row_of_spectra(path, file, about)
            return Pixels(pixels.values, channels=pixels.channels, thumbnail=_picture(path, file, about))
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # which a library in Rust raises beside all of Python's errors
            raise
        raise ValueError(str(error)) from error


def _refuse_damaged(file: Any) -> None:
    """Of a damaged file openreadout reads what is left, which may be a map of another shape."""
    for found in file.check()["findings"]:
        if found["severity"] == "error":
            raise ValueError(found["message"])


def _spectral_images(about: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [image for image in about.get("images", []) if "band_axis" in image.get("extra", {})]


def _image(path: Path, file: Any, about: Mapping[str, Any], key: str | None) -> Pixels:
    found = [each for each in _spectral_images(about) if key in (None, each["name"])]
    if len(found) != 1:
        names = ", ".join(each["name"] for each in _spectral_images(about))
        raise CompsegError(f"{path}: which image? it holds {names}; set source.keys.image")
    described, axis = found[0], found[0]["extra"]["band_axis"]
    if axis["quantity"] == "optical_path_difference":
        raise CompsegError(f"{path}: holds interferograms and no spectra; give the file of its spectra")
    if described["size_t"] * described["size_z"] != 1:
        raise CompsegError(f"{path}: expected rows, columns and one axis of channels, found depths or times as well")
    channels = _channels(path, file, axis, described["extra"].get("trace", 0))
    shape = (described["size_c"], described["size_y"], described["size_x"])
    mosaic = Path(about["path"])
    if mosaic.suffix.lower() == ".dms" and mosaic.stat().st_size == AGILENT_HEADER + 4 * prod(shape):
        image = OnDisk(mosaic, partial(_map_mosaic, mosaic, shape), (1, 2, 0), upwards=True)
        return Pixels(cast(Array, image), channels=channels)
    require_memory(path, shape, np.float32)
    return Pixels(np.moveaxis(file.read_image(described["index"])[0, :, 0], 0, -1), channels=channels)


def _map_mosaic(path: Path, shape: tuple[int, ...]) -> Array:
    """The numbers `(C, H, W)` of an Agilent mosaic, whose first row is the lowest."""
    return np.memmap(path, "<f4", "r", AGILENT_HEADER, shape)


def _row_of_spectra(path: Path, file: Any, about: Mapping[str, Any]) -> Pixels:
    """Spectra that no image is made of, `(1, n, C)`."""
    traces = [trace for trace in about.get("traces", []) if "axis" in trace.get("extra", {})]
    # Beside a spectrum such a file holds what it was made of: single beams, interferograms, phases, matches.
    results = [trace for trace in traces if trace["extra"].get("y_quantity") in RESULTS]
    if not results:
        raise CompsegError(f"{path}: holds no spectra; give a file of absorbance, reflectance or intensity")
    trace, axis = results[0], results[0]["extra"]["axis"]
    require_memory(path, (1, trace["sweep_count"], trace["sample_count"]), np.float64)
    rows = [np.asarray(file.read_trace(trace["index"], sweep))[-1] for sweep in range(trace["sweep_count"])]
    return Pixels(np.stack(rows)[None].astype(np.float32), channels=_channels(path, file, axis, trace["index"]))


def _channels(path: Path, file: Any, axis: Mapping[str, Any], trace: int) -> Channels:
    if axis.get("irregular"):
        values = np.asarray(file.read_trace(trace))[axis.get("channel", 0)]
    else:
        values = np.linspace(axis["first"], axis["last"], axis["size"])
    return spectral(str(path), [float(value) for value in values], unit_of(axis.get("unit") or ""))


def _picture(path: Path, file: Any, about: Mapping[str, Any]) -> NDArray[np.uint8] | None:
    """The picture that the instrument took of the place: in the file, or Agilent's beside it."""
    for image in about.get("images", []):
        sizes = (image["size_y"], image["size_x"], 3)
        if image["samples_per_pixel"] == 3 and image["pixel_type"] == "uint8" and prod(sizes) < 2**28:
            return np.asarray(file.read_image(image["index"])[0, 0, 0], np.uint8)
    beside = path.with_name(CUTOUT)
    if about["format"]["id"] != "agilent-fpa" or not beside.is_file():
        return None
    picture = read_pillow(beside).coloured
    return np.asarray(picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2), np.uint8)
