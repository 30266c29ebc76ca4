"""Samples that are pieces of larger images: spots of tissue arrays that the user may correct, tiles of slides."""

import csv
import tracemalloc

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from compseg.errors import CompsegError
from compseg.sources import Slides, TissueArrays
from compseg.sources.pieces import find_spots, read_spots, tissue_map
from compseg.sources.readers import read_file

CENTRES = {
    f"{row}{column + 1}": (25 + 44 * place, 30 + 46 * column) for place, row in enumerate("ABC") for column in range(5)
}


def mosaic(absent=("B3",), radius=16, seed=0):
    """Round tissue with holes on a grid, tilted a little, and dust."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0.02, 0.02, (140, 260, 6))
    y, x = np.mgrid[:140, :260]
    for position, (row, column) in CENTRES.items():
        if position not in absent:
            disc = (y - row - 0.02 * column) ** 2 + (x - column) ** 2 < radius**2
            image[disc & (rng.random(disc.shape) > 0.2)] += 0.8
    image[2:5, 250:253] += 1
    return image.astype(np.float32)


@pytest.fixture
def array(tmp_path):
    np.save(tmp_path / "array.npy", mosaic())
    rows = [
        f"s_{place},array.npy,{place.lower()},{number % 2},p{number}"
        for number, place in enumerate(CENTRES)
        if place != "B3"
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["sample,image,position,label,patient", *rows]) + "\n")
    return tmp_path


def test_spots_are_found_with_their_place_in_the_grid():
    found = {spot.position: spot for spot in find_spots(tissue_map(mosaic()))}
    assert set(found) == set(CENTRES) - {"B3"}
    for position, spot in found.items():
        row, column = CENTRES[position]
        np.testing.assert_allclose((spot.row, spot.column), (row + 0.02 * column, column), atol=2)
        assert 14 <= spot.radius <= 19
    assert {round(spot.radius) for spot in find_spots(tissue_map(mosaic()), diameter=40)} == {20}


def test_a_large_mosaic_is_searched_on_a_coarse_map():
    large = np.repeat(np.repeat(mosaic(), 9, 0), 9, 1)
    found = {spot.position: spot for spot in find_spots(tissue_map(large))}
    assert set(found) == set(CENTRES) - {"B3"}
    np.testing.assert_allclose(found["C5"].row, 9 * (25 + 88 + 0.02 * 214) + 4, atol=20)


def test_spots_are_written_corrected_and_read(array):
    source = TissueArrays(array / "labels.csv")
    infos = source.infos()
    assert [info.name for info in infos][:3] == ["s_A1", "s_A2", "s_A3"]
    arrays = source.read(infos[0])
    first = arrays.image
    assert arrays.remarks == ()
    alone = TissueArrays(array / "labels.csv", classes=None)
    alone._rows = {name: row for name, row in alone._rows.items() if name in ("s_A1", "s_A2")}
    assert alone.read(infos[0]).remarks == (
        "array.npy: spots that no row of the manifest names: A3, A4, A5, B1, B2 ...",
    )
    spot = read_spots(array / "array_spots.csv")["A1"]
    np.testing.assert_array_equal(first, mosaic()[spot.window((140, 260))])
    assert Image.open(array / "array_spots.png").size[0] > 260
    # The user moves A1 to where B3 would be; the file is not written again.
    lines = [line for line in csv.reader((array / "array_spots.csv").open()) if line[0] != "A1"]
    lines.append(["a1", "69", "122", "10"])
    (array / "array_spots.csv").write_text("\n".join(map(",".join, lines)) + "\n")
    corrected = TissueArrays(array / "labels.csv")
    np.testing.assert_array_equal(corrected.read(infos[0]).image, mosaic()[59:80, 112:133])
    assert corrected.provenance() != source.provenance() | {"spots_sha256": ""}


def test_a_mosaic_larger_than_memory_is_read_spot_by_spot(array):
    large = np.repeat(np.repeat(mosaic(), 4, 0), 4, 1)
    group = zarr.open_group(array / "array.zarr", mode="w", zarr_format=3)
    group.create_array("0", data=np.moveaxis(large, -1, 0), chunks=(6, 64, 64))
    group.attrs["ome"] = {"multiscales": [{"axes": [{"name": axis} for axis in "cyx"], "datasets": [{"path": "0"}]}]}
    (array / "labels.csv").write_text((array / "labels.csv").read_text().replace(".npy", ".zarr"))
    source = TissueArrays(array / "labels.csv")
    infos = source.infos()
    source.read(infos[0])  # imports what it needs, and writes the spots with their picture
    tracemalloc.start()
    tissue_map(read_file(array / "array.zarr", mapped=True).image)
    images = [TissueArrays(array / "labels.csv").read(info).image for info in infos[:2]]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < large.nbytes / 3, (peak, large.nbytes)
    window = read_spots(array / "array_spots.csv")["A2"].window(large.shape)
    np.testing.assert_array_equal(images[1], large[window])


PROBLEMS = {
    "a position without a spot": ("B3", None, r"array_spots\.csv: no spot at B3 for sample s_A1; it has: A1, A2"),
    "no position": ("", None, "no spot at an empty position"),
    "twice": ("A1", "position,row,column,radius\nA1,9,9,5\nA1,9,9,5\n", "line 3: 'A1' is empty, comes twice"),
    "no number": ("A1", "position,row,column,radius\nA1,x,9,5\n", r"array_spots\.csv: damaged, or something else"),
    "another table": ("A1", "name,x\nA1,3\n", "expected the columns position,row,column,radius"),
}


@pytest.mark.parametrize(("position", "spots", "words"), PROBLEMS.values(), ids=PROBLEMS)
def test_what_is_wrong_with_spots_is_said_in_one_line(array, position, spots, words):
    (array / "labels.csv").write_text(f"sample,image,position,label\ns_A1,array.npy,{position},1\n")
    if spots is not None:
        (array / "array_spots.csv").write_text(spots)
    source = TissueArrays(array / "labels.csv")
    with pytest.raises(CompsegError, match=words):
        source.read(source.infos()[0])


def test_a_mosaic_without_tissue(array):
    np.save(array / "array.npy", np.ones((50, 60, 3)))
    source = TissueArrays(array / "labels.csv")
    with pytest.raises(CompsegError, match=r"no round tissue found; write the spots as array_spots\.csv"):
        source.read(source.infos()[0])


@pytest.fixture
def slides(tmp_path):
    """Two slides of 512 x 640, with tissue in the left half of the first, and everywhere but a corner of the second."""
    rng = np.random.default_rng(0)
    for name, columns in (("a", 320), ("b", 512)):
        slide = np.full((512, 640, 3), 240, np.uint8)
        slide[:, :columns] = rng.integers((200, 90, 160), (220, 110, 180), (512, columns, 3), np.uint8)
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as file:
            file.write(slide, tile=(128, 128), subifds=1, photometric="rgb", compression="deflate")
            file.write(slide[::2, ::2], tile=(128, 128), subfiletype=1, photometric="rgb", compression="deflate")
    (tmp_path / "slides.csv").write_text("sample,image,label,patient\na,a.tif,1,p1\nb,b.tif,0,p2\n")
    return tmp_path


def test_slides_are_cut_into_tiles_with_tissue(slides):
    source = Slides(slides / "slides.csv", edge=128)
    infos = source.infos()
    names = [info.name for info in infos]
    assert len(infos) == 4 * 3 + 4 * 4
    assert names[:4] == ["a_r00_c00", "a_r00_c01", "a_r00_c02", "a_r01_c00"]
    assert {(info.label, info.group, info.patient) for info in infos} == {(1, "a", "p1"), (0, "b", "p2")}
    full = tifffile.imread(slides / "b.tif")
    last = infos[names.index("b_r03_c02")]
    np.testing.assert_array_equal(source.read(last).image, full[384:512, 256:384])
    assert source.channels().names == ("red", "green", "blue")
    assert source.provenance() != Slides(slides / "slides.csv", edge=64).provenance()


def test_a_level_of_the_pyramid(slides):
    source = Slides(slides / "slides.csv", edge=128, level=1)
    tile = source.read(source.infos()[0]).image
    np.testing.assert_array_equal(tile, tifffile.imread(slides / "a.tif")[:256:2, :256:2])
    with pytest.raises(CompsegError, match=r"a\.tif: YXS with 2 levels"):
        Slides(slides / "slides.csv", level=2)
    with pytest.raises(CompsegError, match="no tile of 1024 pixels with tissue in 512 x 640"):
        Slides(slides / "slides.csv", edge=1024)
