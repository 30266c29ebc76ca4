"""The commands of README and docs run, a page at a time and in its order, on samples so small that each takes seconds.

Beside these, test_beginnings.py runs the commands that prepare, test_export_documented.py those that export,
test_object_storage.py those of object storage, test_hosts.py those on two hosts, test_api.py and test_pages.py Python.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from running import run_here, succeed

ROOT = Path(__file__).parents[1]
ELSEWHERE = {"docs/how-to/beginnings.md", "docs/how-to/export.md", "docs/how-to/object-storage.md"}
NOT_HERE = {
    "docs/how-to/slurm.md": r"/shared/",  # needs a cluster: test_documented_commands.py composes it
    "docs/how-to/your-own-data.md": r"^prepare",  # test_beginnings.py runs them
}
VERBS = "|".join(sorted(file.stem for file in (ROOT / "conf").glob("*.yaml")))
PAGES = {
    str(page.relative_to(ROOT)): [
        line
        for line in re.findall(
            r"^(?:python -m compseg\.|compseg )((?:" + VERBS + r")(?=\s)[^#\n]*)", page.read_text(), re.MULTILINE
        )
        if not re.search(NOT_HERE.get(str(page.relative_to(ROOT)), r"a^"), line)
    ]
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if page.name != "lab-log.md"
}
PAGES = {page: lines for page, lines in PAGES.items() if lines and page not in ELSEWHERE}

# Fewer samples, pixels, epochs and seeds than a page says.
FEWER = [
    (r"data\.source\.size([=:] ?)\d+", r"data.source.size\g<1>20"),
    (r"trainer\.max_epochs([=:] ?)\d+", r"trainer.max_epochs\g<1>1"),
    (r"\bseeds=\d+", "seeds=1"),
    (r"trainer\.devices=4", "trainer.devices=2"),
    (r" 'overrides=\{", r" 'overrides={model.width: 4, trainer.accelerator: cpu, trainer.devices: 1, "),
    (r"semireal/", ""),
]
SMALL = {"trainer.max_epochs": "1", "trainer.accelerator": "cpu", "trainer.devices": "1", "data.batch_size": "6"}
SMALL_PHANTOM = {"data.source.size": "20", "data.source.channels": "8"}
SMALL_NETWORK = {"model.width": "4"}
HAS_NO_WIDTH = "pretrained|pictures|patchcore|padim"
COHORT = r"data/[\w-]+\.zarr"


def smaller(line: str) -> list[str]:
    """The words of a command after its verb, with less to compute."""
    for pattern, less in FEWER:
        line = re.sub(pattern, less, line)
    words = shlex.split(line)[1:]
    if "-m" in words:
        words = two_jobs(words)
    if line.startswith("compare") and "overrides={" not in line:
        words.append("overrides={model.width: 4, trainer.max_epochs: 1, trainer.accelerator: cpu, trainer.devices: 1}")
    if " correction=" in line:  # which needs a spectral axis
        words += ["source.axis=wavenumbers.csv", "source.unit=cm-1"]
    if line.startswith("train"):
        more = SMALL | ({} if "data=cohort" in line else SMALL_PHANTOM)
        more |= {} if re.search(HAS_NO_WIDTH, line) else SMALL_NETWORK
        given = {word.split("=")[0] for word in words}
        words += [f"{key}={value}" for key, value in more.items() if key not in given]
    return words


def two_jobs(words: list[str]) -> list[str]:
    """A sweep of the first two values of its first key, and the first one of each other."""
    swept = [place for place, word in enumerate(words) if re.fullmatch(r"[\w.]+=[\w.]+(,[\w.]+)+", word)]
    kept = {place: 2 if place == swept[0] else 1 for place in swept}
    return [",".join(word.split(",")[: kept.get(place, len(word))]) for place, word in enumerate(words)]


def stock(folder: Path, trained, commands: list[str], side: int) -> None:
    """What the pages have at hand: images with labels, runs, and the cohorts that their commands do not make."""
    chance, rows = np.random.default_rng(0), ["sample,image,label,patient,truth"]
    for place in ("images", "new_images", "truth"):
        (folder / place).mkdir()
    for number in range(40):
        cube = chance.random((side, side, 8), np.float32) + 1
        cube[: side // 2, :, 2] += number % 2
        np.save(folder / f"images/{number}.npy", cube)
        region = np.zeros((side, side), bool)
        region[: side // 2] = True
        np.save(folder / f"truth/{number}.npy", region)
        rows.append(f"s{number},images/{number}.npy,{number % 2},P{number // 2},{f'truth/{number}.npy' * (number % 2)}")
    np.save(folder / "new_images/new.npy", cube)
    (folder / "labels.csv").write_text("\n".join(rows))
    for name, head in (("wavenumbers", "wavenumber"), ("matrigel", "wavenumber,absorbance")):
        cells = [f"{wave},{2 + wave % 3}" if "," in head else str(wave) for wave in range(1000, 1800, 100)]
        (folder / f"{name}.csv").write_text("\n".join([head, *cells]))
    for name in ("RUN", "A", "B"):
        shutil.copytree(trained.run, folder / f"outputs/{name}")
    (folder / "data").mkdir()
    first = {path: line for line in reversed(commands) for path in re.findall(COHORT, line)}
    for path in {"data/phantom.zarr", *(path for path, line in first.items() if "source" not in line)}:
        (folder / path).symlink_to(trained.cohort)  # as data=phantom makes it of that size


FIRST = {"README.md", "docs/getting-started.md"}  # what a newcomer types; all pages take many minutes


@pytest.mark.slow
@pytest.mark.parametrize("page", [pytest.param(page, marks=[pytest.mark.soak] * (page not in FIRST)) for page in PAGES])
def test_the_commands_of_a_page_run(page, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    stock(tmp_path, trained, PAGES[page], side=4 if "correction=" in str(PAGES[page]) else 16)
    for line in PAGES[page]:
        verb, words = line.split()[0], smaller(line)
        if verb == "prepare":
            there = Path(re.search(COHORT, line)[0])
            there.unlink() if there.is_symlink() else shutil.rmtree(there, ignore_errors=True)
        if re.search(r"report | -m |devices=[2-9]", line):  # a program; or starts processes that start as this one has
            succeed(verb, *words, cwd=tmp_path)
        else:
            assert run_here(verb, *words) == 0, line + "\n" + capsys.readouterr().err[-3000:]
