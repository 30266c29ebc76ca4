"""The commands of the pages on data run as they are written, on files as those pages describe them."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image

from compseg.cohort import Cohort
from compseg.sources.pieces import read_spots
from running import run_here, succeed

ROOT = Path(__file__).parents[2]
PAGES = ("beginnings", "your-own-data")
COMMANDS = {
    f"{page} {place}": (page, verb, arguments)
    for page in PAGES
    for place, (verb, arguments) in enumerate(
        re.findall(r"^python -m compseg\.(\w+)([^#\n]*)", (ROOT / f"docs/how-to/{page}.md").read_text(), re.MULTILINE)
    )
}
WAVENUMBERS = np.linspace(1000, 1800, 9)
TINY = ("model.width=8", "data.batch_size=6", "trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.devices=1")


def cubes(count=12):
    rng = np.random.default_rng(0)
    band = np.exp(-(((WAVENUMBERS - 1500) / 100) ** 2))
    return [rng.random((20, 18, 9)).astype(np.float32) + 3 * band * (number % 2) + 1 for number in range(count)]


def manifest(name, rows, *columns):
    lines = [",".join(map(str, row)) for row in (("sample", "image", *columns), *rows)]
    Path(name).write_text("\n".join(lines) + "\n")


def mosaic():
    """An array of 3 x 4 spots: an ENVI cube under the name of the page's Agilent mosaic would be another format."""
    grid = np.full((150, 200, 9), 0.01, np.float32)
    y, x = np.mgrid[:150, :200]
    for row in range(3):
        for column in range(4):
            grid[(y - 25 - 50 * row) ** 2 + (x - 25 - 50 * column) ** 2 < 18**2] = (
                np.random.default_rng(row).random(9) + 1
            )
    places = [f"{'ABC'[number // 4]}{number % 4 + 1}" for number in range(12)]
    np.save("array.npy", grid + np.random.default_rng(0).normal(0, 0.01, grid.shape).astype(np.float32))
    manifest("cores.csv", [(f"c{n}", "array.npy", p, "TN"[n % 2], f"P{n}") for n, p in enumerate(places)],
             "position", "class", "patient")  # fmt: skip


def slides():
    slide = np.full((1024, 1024, 3), 240, np.uint8)
    slide[:, :512] = np.random.default_rng(0).integers((200, 90, 160), (220, 110, 180), (1024, 512, 3), np.uint8)
    for number in range(6):
        tifffile.imwrite(f"slide{number}.tif", slide + np.uint8(number), tile=(256, 256), photometric="rgb")
    manifest("slides.csv", [(f"s{n}", f"slide{n}.tif", n % 2) for n in range(6)], "label")


def envi():
    writer = pytest.importorskip("spectral").envi
    Path("cubes").mkdir()
    for number, cube in enumerate(cubes()):
        metadata = {"wavelength": WAVENUMBERS.tolist()}
        writer.save_image(f"cubes/s{number}.hdr", cube, metadata=metadata, dtype=np.float32, interleave="bil")
    manifest("labels.csv", [(f"s{n}", f"cubes/s{n}.hdr", n % 2, f"P{n}") for n in range(12)], "label", "patient")


def mat():
    Path("new").mkdir()
    for number, cube in enumerate(cubes()):
        mask = np.ones(cube.shape[:2], np.uint8)
        mask[:4] = 0
        held = {"cube": cube, "mask": mask, "wavenumbers": WAVENUMBERS[:, None]}
        scipy.io.savemat(f"s{number}.mat", held)
    shutil.copy("s0.mat", "new/n.mat")
    # The other direction, which the segmenter puts right.
    turned = {**held, "cube": cubes()[0][..., ::-1], "wavenumbers": WAVENUMBERS[::-1][:, None]}
    scipy.io.savemat("new/turned.mat", turned)
    manifest("labels.csv", [(f"s{n}", f"s{n}.mat", n % 2) for n in range(12)], "label")


def pictures():
    for number in range(12):
        picture = np.random.default_rng(number).integers(0, 255, (20, 18, 3), np.uint8)
        Image.fromarray(picture).save(f"p{number}.png")
    manifest("labels.csv", [(f"p{n}", f"p{n}.png", n % 2) for n in range(12)], "label")


def arrays():
    for number, cube in enumerate(cubes()):
        np.save(f"s{number}.npy", cube)
    Path("wavenumbers.csv").write_text("wavenumber_per_cm\n" + "\n".join(f"{value:g}" for value in WAVENUMBERS))
    manifest("labels.csv", [(f"s{n}", f"s{n}.npy", ("T", "M", "N", "NAT", "N")[n % 5]) for n in range(12)], "class")
    if "class" in Path("command").read_text():
        return
    manifest("labels.csv", [(f"s{n}", f"s{n}.npy", n % 2) for n in range(12)], "label")


# What each command starts from, by the first word of this list that it contains.
NEEDS = {"source=tma": mosaic, "source=slides": slides, "source.unit": envi, "source.keys": mat, "pictures": pictures}


def files_for(page, arguments):
    if "source.keys" in arguments:
        return mat
    return next((make for word, make in NEEDS.items() if word in arguments), arrays)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


PREPARING = {name: given for name, given in COMMANDS.items() if given[1] == "prepare" and "overwrite" not in given[2]}


def test_the_pages_hold_commands():
    assert len(PREPARING) >= 8


@pytest.mark.parametrize(("page", "verb", "arguments"), PREPARING.values(), ids=PREPARING)
def test_a_command_that_prepares_runs_as_written(here, page, verb, arguments):
    Path("command").write_text(arguments)
    files_for(page, arguments)()
    # The page names a mosaic of many tiles, of which the instrument files hold no array.
    assert run_here(verb, *shlex.split(arguments)) == 0
    out = Path(re.search(r"out=(\S+)", arguments)[1])
    cohort = Cohort.open(out)
    assert len(cohort.infos) >= 9
    if "source.keys" in arguments:
        assert not cohort.tissue("s0")[:4].any()
        assert cohort.channels.values == tuple(WAVENUMBERS)
    if "source=tma" in arguments:
        assert set(read_spots(here / "array_spots.csv")) == {
            f"{row}{column}" for row in "ABC" for column in range(1, 5)
        }
        assert run_here(verb, *shlex.split(arguments), "overwrite=true") == 0
    assert run_here("check", f"cohort={out}") == 0


@pytest.mark.slow
def test_files_with_keys_are_prepared_trained_on_and_mapped(here):
    """The three commands on .mat files, one after the other; the new files are read as those of training were."""
    mat()
    mats = [given for given in COMMANDS.values() if "mat" in given[2]]
    assert [verb for _, verb, _ in mats][:3] == ["prepare", "train", "predict"]
    for _, verb, arguments in mats[:3]:
        more = TINY if verb == "train" else ()
        printed = succeed(verb, *shlex.split(arguments), *more, cwd=here)
    assert "2 images" in printed
    one, other = (np.load(here / f"maps/maps/{name}.npy") for name in ("n", "turned"))
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert not one[:4].any()
    assert one[4:].any()
