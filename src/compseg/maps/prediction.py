"""Maps of new images.

An image, a folder of images, a manifest without labels, or a cohort, mapped with a segmenter and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from compseg.cohort import Cohort
from compseg.errors import CompsegError
from compseg.files import atomic_text, csv_text
from compseg.maps.segmenter import Segmenter
from compseg.maps.writing import write_map
from compseg.samples import Image, Mask
from compseg.sources.manifest import clean_name, read_manifest
from compseg.sources.readers import READERS, read_image, read_mask, read_picture

COLUMNS = ("sample", "area_fraction", "mean_activation", "tissue_pixels", "threshold")


@dataclass(frozen=True)
class NewImage:
    """An image to map, read when asked for.

    Attributes:
        name: What its files are called.
        path: Its file, or the cohort that holds it.
        tissue: Mask file, if one is given.
        reference: Picture file, if one is given.
        cohort: Where it is read from instead of a file.
    """

    name: str
    path: Path
    tissue: Path | None = None
    reference: Path | None = None
    cohort: Cohort | None = None

    def read(self, channels_first: bool = False) -> tuple[Image, Mask | None, NDArray[np.uint8] | None]:
        """Image `(H, W, C)`, tissue mask and reference picture, the latter two None where there is none."""
        if self.cohort is not None:
            return self.cohort.image(self.name), self.cohort.tissue(self.name), self.cohort.reference(self.name)
        tissue = read_mask(self.tissue) if self.tissue else None
        return (
            read_image(self.path, channels_first=channels_first),
            tissue,
            read_picture(self.reference) if self.reference else None,
        )


def new_images(path: Path) -> list[NewImage]:
    """What lies at a path: a cohort's samples, a manifest's rows, a folder's images, or one image.

    Raises:
        CompsegError: If there is nothing to map.
    """
    if path.is_dir():
        return _of_cohort(path) if (path / "zarr.json").is_file() else _of_folder(path)
    if not path.is_file():
        raise CompsegError(f"input={path}: does not exist; give an image, a folder of images, a manifest or a cohort")
    if path.suffix.lower() == ".csv":
        rows = read_manifest(path, labelled=False)
        return [
            NewImage(row.info.name, row.files["image"], row.files.get("tissue"), row.files.get("reference"))
            for row in rows
        ]
    return [NewImage(clean_name(path.stem), path)]


def _of_cohort(path: Path) -> list[NewImage]:
    cohort = Cohort.open(path)
    return [NewImage(info.name, path, cohort=cohort) for info in cohort.infos]


def _of_folder(path: Path) -> list[NewImage]:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in READERS)
    if not files:
        raise CompsegError(f"input={path}: no image in this folder; expected files ending in {', '.join(READERS)}")
    images = [NewImage(clean_name(file.stem), file) for file in files]
    names = [image.name for image in images]
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise CompsegError(
            f"input={path}: {doubles[0]} is the name of more than one image; rename one, or give a manifest"
        )
    return images


def predict(
    segmenter: Segmenter, images: Sequence[NewImage], out: Path, channels_first: bool = False
) -> list[dict[str, Any]]:
    """Map every image and write `maps/NAME.npy`, overlay and mask PNGs, and `areas.csv`.

    The table grows as samples are done.

    Args:
        segmenter: With a threshold.
        images: What to map; one at a time is in memory.
        out: Folder, made if absent.
        channels_first: Whether .npy, .npz and .mat files hold `(C, H, W)`.

    Returns:
        The rows of `areas.csv`.

    Raises:
        CompsegError: If the segmenter has no threshold, or an image is unreadable, of other channels or of another size
            than its mask. What was written for the images before it stays.
    """
    rows: list[dict[str, Any]] = []
    for row in _rows(segmenter, track(images, description="predicting", transient=True), out, channels_first):
        rows.append(row)
        table = csv_text(COLUMNS, ([row[column] for column in COLUMNS] for row in rows))
        atomic_text(out / "areas.csv", table)
    return rows


def _rows(segmenter: Segmenter, images: Any, out: Path, channels_first: bool) -> Iterator[dict[str, Any]]:
    threshold = segmenter.threshold
    if threshold is None:
        raise CompsegError("segmenter: has no threshold yet; run compseg.evaluate on its run, or give threshold=0.5")
    for new in images:
        image, tissue, reference = new.read(channels_first)
        activation, tissue = _mapped(segmenter, new, image, tissue)
        mask = threshold.apply(activation, tissue)
        write_map(out / "maps", new.name, image if reference is None else reference, activation, mask)
        pixels = int(tissue.sum())
        yield {
            "sample": new.name,
            "area_fraction": round(float(mask.sum()) / max(pixels, 1), 6),
            "mean_activation": round(float(activation.sum()) / max(pixels, 1), 6),
            "tissue_pixels": pixels,
            "threshold": round(threshold.value, 6),
        }


def _mapped(segmenter: Segmenter, new: NewImage, image: Image, tissue: Mask | None) -> tuple[NDArray[np.float32], Mask]:
    if tissue is not None and tissue.shape != image.shape[:2]:
        raise CompsegError(
            f"{new.tissue}: mask of {tissue.shape} for an image of {image.shape[:2]}; give a mask of the image's size"
        )
    if not np.isfinite(image).all():
        raise CompsegError(
            f"{new.path}: holds NaN or infinite values; replace them, for example by zero outside the tissue"
        )
    tissue = segmenter.tissue(image) if tissue is None else tissue
    try:
        return segmenter(image, tissue), tissue
    except CompsegError as error:
        raise CompsegError(f"{new.path}: {error}") from error
