"""Samples that are pieces of larger images: the spots of a tissue array, the tiles of a slide."""

from __future__ import annotations

import csv
import hashlib
import string
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from compseg.errors import CompsegError, closest, reading
from compseg.files import atomic_bytes, atomic_text, csv_text
from compseg.plots.gallery import circles
from compseg.plots.style import file_of
from compseg.preprocessing.tissue import otsu
from compseg.samples import Channels, SampleArrays, SampleInfo, Window
from compseg.sources.images import Images
from compseg.sources.manifest import Row
from compseg.sources.pictures import level_of, whole_image
from compseg.sources.readers import ImageFile

LARGEST_MAP = 1024  # pixels a side of the map that spots are found on
LINES = 16  # of that map, which are read at a time
OVERVIEW = 256  # pixels of the longer side that are enough to see where a slide has tissue
HEADER = ("position", "row", "column", "radius")
Map = NDArray[np.float32]


@dataclass(frozen=True)
class Spot:
    """A spot of a tissue array, a circle.

    Attributes:
        position: In the array's grid, `A1`: the row as a letter, the column as a number.
        row: Of its centre, in pixels from the top.
        column: Of its centre, in pixels from the left.
        radius: In pixels.
    """

    position: str
    row: float
    column: float
    radius: float

    def window(self, shape: tuple[int, ...]) -> Window:
        """The square around it, as far as the image goes."""
        centres = ((self.row, shape[0]), (self.column, shape[1]))
        rows, columns = (
            slice(max(0, round(centre - self.radius)), min(size, round(centre + self.radius) + 1))
            for centre, size in centres
        )
        return rows, columns


class TissueArrays(Images):
    """A `Source` of the spots of tissue arrays, each array one mosaic.

    The manifest has a row for each spot: `image` is the mosaic, `position` the place in its grid (`A1`, `B7`). The
    first time, spots are found as round tissue and written beside the mosaic: `MOSAIC_spots.csv` for the user to
    correct, and `MOSAIC_spots.png` to look at. From then on the table counts.

    Args:
        manifest: CSV with `sample`, `image`, `position` and what else `Images` takes.
        diameter: Of a spot in pixels, to find spots by; None: that of most of them.
        options: As for `Images`.

    Raises:
        CompsegError: As for `Images`; or a position without a spot.
    """

    _mapped = True

    def __init__(self, manifest: str | Path, diameter: float | None = None, **options: Any) -> None:
        super().__init__(manifest, **options)
        self._diameter = diameter
        self._spots: dict[Path, dict[str, Spot]] = {}
        self._opened: tuple[Path, ImageFile] | None = None

    def file_of(self, row: Row) -> ImageFile:
        """What the image of a row holds, kept until another image is asked for: its rows follow one another."""
        path = row.files["image"]
        if self._opened is None or self._opened[0] != path:
            self._opened = None  # before the next one is read, or there would be two in memory
            self._opened = path, super().file_of(row)
        mosaic = self._opened[1]
        if path not in self._spots:
            self._spots[path] = spots_of(path, mosaic.image, self._diameter)
        known = self._spots[path]
        if row.position not in known:
            raise CompsegError(
                f"{spots_file(path)}: no spot at {row.position or 'an empty position'} for sample {row.info.name}; "
                f"{closest(row.position, known, 'it has')}, add or correct its line"
            )
        return replace(mosaic, image=mosaic.image[known[row.position].window(mosaic.image.shape)], thumbnail=None)

    def read(self, info: SampleInfo) -> SampleArrays:
        """A spot; remarks on which spots of its mosaic no row of the manifest names."""
        arrays, path = super().read(info), self._rows[info.name].files["image"]
        named = {row.position for row in self._rows.values() if row.files["image"] == path}
        left = [position for position in self._spots[path] if position not in named]
        said = (
            f"{path.name}: spots that no row of the manifest names: {', '.join(left[:5])}{' ...' if left[5:] else ''}"
        )
        return replace(arrays, remarks=(*arrays.remarks, said)) if left else arrays

    def provenance(self) -> dict[str, Any]:
        """As of image files, and the lines of all spots."""
        mosaics = {row.files["image"]: row for row in self._rows.values()}
        for path, row in mosaics.items():
            if not spots_file(path).is_file():
                self.file_of(row)  # finds and writes them
        spots = [spots_file(path).read_bytes() for path in sorted(mosaics)]
        return {**super().provenance(), "spots_sha256": hashlib.sha256(b"".join(spots)).hexdigest()}


def spots_file(mosaic: Path) -> Path:
    """Where the spots of a mosaic are written."""
    return mosaic.with_name(f"{mosaic.stem}_spots.csv")


def spots_of(mosaic: Path, image: NDArray[Any], diameter: float | None) -> dict[str, Spot]:
    """The spots of a mosaic by position: from its file, else found and written there."""
    path = spots_file(mosaic)
    if not path.is_file():
        coarse = tissue_map(image)
        spots = find_spots(coarse, diameter)
        if not spots:
            raise CompsegError(f"{mosaic}: no round tissue found; write the spots as {path.name}: {','.join(HEADER)}")
        lines = [[spot.position, *(round(each, 1) for each in (spot.row, spot.column, spot.radius))] for spot in spots]
        values, step = coarse
        marks = [(spot.position, spot.row / step, spot.column / step, spot.radius / step) for spot in spots]
        atomic_bytes(path.with_suffix(".png"), file_of(circles(values, marks, f"spots of {mosaic.name}")))
        atomic_text(path, csv_text(HEADER, lines))
    return read_spots(path)


def read_spots(path: Path) -> dict[str, Spot]:
    """Spots by position, from a CSV with position, row, column and radius.

    Raises:
        CompsegError: A line is wrong, or a position comes twice.
    """
    found: dict[str, Spot] = {}
    with reading(path, f"expected the columns {','.join(HEADER)}"), path.open(newline="", encoding="utf-8-sig") as file:
        for number, line in enumerate(csv.DictReader(file), 2):
            position = line["position"].strip().upper()
            spot = Spot(position, *(float(line[name]) for name in HEADER[1:]))
            if not position or position in found or not spot.radius > 0:
                raise CompsegError(f"{path}: line {number}: '{position}' is empty, comes twice or has no radius")
            found[position] = spot
    return found


def tissue_map(image: NDArray[Any]) -> tuple[Map, int]:
    """What is high on tissue, on a coarse grid, and the step of that in pixels.

    The mean over channels, as of absorbance; of a photograph its saturation.
    """
    step = max(1, -(-max(image.shape[:2]) // LARGEST_MAP))
    photograph = image.dtype == np.uint8 and image.shape[2] == 3
    # Some rows at a time: of an image on disk the map's pixels alone may not fit into memory, with all channels.
    blocks = (
        np.asarray(image[top : top + LINES * step : step, ::step], np.float32)
        for top in range(0, len(image), LINES * step)
    )
    return np.concatenate([np.ptp(block, axis=2) if photograph else block.mean(axis=2) for block in blocks]), step


def find_spots(coarse: tuple[Map, int], diameter: float | None = None) -> list[Spot]:
    """Round pieces of tissue, with their place in the grid that they form.

    Args:
        coarse: Tissue is high in it; and its step in pixels.
        diameter: Of a spot in pixels; None: that of most pieces.
    """
    values, step = coarse
    # A margin, since closing takes what is outside for background and would cut spots at the edge.
    tissue = np.pad(values > otsu(values), 4)
    tissue = ndimage.binary_fill_holes(ndimage.binary_closing(tissue, iterations=2))[4:-4, 4:-4]
    pieces, count = ndimage.label(ndimage.binary_opening(tissue, iterations=2))
    if not count:
        return []
    areas = ndimage.sum_labels(tissue, pieces, np.arange(1, count + 1))
    # Dust and torn corners are small beside spots: half of all tissue is in pieces of at least the usual area.
    order = np.sort(areas)[::-1]
    usual = order[np.searchsorted(order.cumsum(), order.sum() / 2)]
    if diameter is not None:
        usual = np.pi / 4 * (diameter / step) ** 2
    # What fills the image is no spot of an array.
    kept = (areas > usual / 4) & (areas < tissue.size / 2)
    boxes = [box for box, keep in zip(ndimage.find_objects(pieces), kept, strict=True) if keep]
    centres = np.array([[(side.start + side.stop - 1) / 2 for side in box] for box in boxes]).reshape(-1, 2)
    radii = [
        max(side.stop - side.start for side in box) / 2 + 1 if diameter is None else diameter / step / 2
        for box in boxes
    ]
    spacing = float(np.median(radii)) if radii else 1.0
    rows, columns = (_lines(places, spacing) for places in centres.T)
    middle = (step - 1) / 2  # of the pixels that one of the map stands for
    found = [
        (row, column, Spot(f"{_letters(row)}{column + 1}", y * step + middle, x * step + middle, radius * step))
        for row, column, (y, x), radius in zip(rows, columns, centres, radii, strict=True)
    ]
    return [spot for _, _, spot in sorted(found, key=lambda each: each[:2])]


def _lines(places: NDArray[np.float64], radius: float) -> NDArray[np.intp]:
    """The number of the row (or column) of the grid that each centre is in: a new one begins after a gap."""
    order = np.argsort(places)
    begins = np.diff(places[order]) > radius
    numbers = np.empty(len(places), np.intp)
    numbers[order] = np.append(0, begins.cumsum())
    return numbers


def _letters(number: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    letters = string.ascii_uppercase
    return letters[number] if number < 26 else letters[number // 26 - 1] + letters[number % 26]


class Slides(Images):
    """A `Source` of whole slides in colour, cut into square tiles; each tile with tissue is a sample.

    A tile has its slide's label, class, split and patient; its group is the slide, unless the manifest names another,
    so that tiles of a slide stay in one split.

    Args:
        manifest: CSV with a row for each slide; `image` is a TIFF with tiles, as slide scanners write it.
        edge: Of a tile, in pixels.
        level: Of the pyramid; 0 is the full resolution.
        least_tissue: Part of a tile that has to be tissue, by its saturation.
        options: As for `Images`.

    Raises:
        CompsegError: As for `Images`; or a slide without tiles of tissue.
    """

    def __init__(
        self, manifest: str | Path, edge: int = 512, level: int = 0, least_tissue: float = 0.1, **options: Any
    ) -> None:
        super().__init__(manifest, **options)
        self._edge, self._level, self._least = edge, level, least_tissue
        self._opened: tuple[Path, Any] | None = None
        self._windows: dict[str, Window] = {}
        slides, self._rows = self._rows, {}
        for slide in slides.values():
            for number, window in self._tiles(slide):
                info = slide.info
                tile = replace(info, name=f"{info.name}_{number}", group=info.group or info.name)
                self._rows[tile.name], self._windows[tile.name] = replace(slide, info=tile), window

    def _tiles(self, slide: Row) -> Iterator[tuple[str, Window]]:
        """The tiles of a slide that hold tissue, from the top left; `r03_c12` is the fourth row's thirteenth."""
        path = slide.files["image"]
        overview, (height, width) = _overview(path, self._level)
        colour = tissue_map(overview)[0]
        tissue, found = colour > otsu(colour), False
        steps = [self._edge * small / large for small, large in zip(tissue.shape, (height, width), strict=True)]
        for row in range(height // self._edge):
            for column in range(width // self._edge):
                seen = tuple(
                    slice(int(place * step), max(int(place * step) + 1, int((place + 1) * step)))
                    for place, step in zip((row, column), steps, strict=True)
                )
                if tissue[seen].mean() >= self._least:
                    found = True
                    top, left = row * self._edge, column * self._edge
                    yield f"r{row:02d}_c{column:02d}", (slice(top, top + self._edge), slice(left, left + self._edge))
        if not found:
            raise CompsegError(
                f"{path}: no tile of {self._edge} pixels with tissue in {height} x {width}; "
                "give a smaller source.edge or source.least_tissue"
            )

    def file_of(self, row: Row) -> ImageFile:
        """What the image of a row holds, kept until another image is asked for: its rows follow one another."""
        path = row.files["image"]
        if self._opened is None or self._opened[0] != path:
            self._opened = path, level_of(path, self._level)
        with reading(path, "copy the slide again"):
            tile = np.asarray(self._opened[1][self._windows[row.info.name]])
        return ImageFile(tile, Channels(3, names=("red", "green", "blue")))

    def provenance(self) -> dict[str, Any]:
        """As of image files, and how slides are cut."""
        return {**super().provenance(), "edge": self._edge, "level": self._level, "least_tissue": self._least}


def _overview(path: Path, level: int) -> tuple[NDArray[Any], tuple[int, int]]:
    """The smallest picture of a slide that still shows its tissue, and the size of a level."""
    with reading(path, "expected a slide in colour, a TIFF"), tifffile.TiffFile(path, _multifile=False) as file:
        levels = whole_image(path, file).levels
        if levels[0].axes != "YXS" or not 0 <= level < len(levels):
            raise CompsegError(
                f"{path}: {levels[0].axes} with {len(levels)} levels; expected colour (YXS) with {level}"
            )
        small = [each for each in levels if max(each.shape[:2]) >= OVERVIEW] or levels[:1]
        step = max(1, max(small[-1].shape[:2]) // (4 * OVERVIEW))
        height, width = levels[level].shape[:2]
        number = levels.index(small[-1])
    # A slide without a pyramid need not fit into memory for it.
    return np.asarray(level_of(path, number)[::step, ::step])[..., :3], (height, width)
