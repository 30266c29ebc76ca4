"""The page of a cohort: one file that needs nothing else, with counts, problems, and each sample's quality."""

from __future__ import annotations

import numpy as np
import pytest
from memory_source import MemorySource

from compseg.cohort import prepare
from compseg.cohort.quality import quality_of
from compseg.report import cohort_page
from compseg.samples import Channels, SampleArrays

AXIS = np.linspace(1800, 950, 86)
CHANNELS = Channels(86, tuple(AXIS), "cm-1")


def spot(height: float, noise: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    tissue = np.zeros((12, 14), bool)
    tissue[3:10, 2:12] = True
    band = np.exp(-(((AXIS - 1655) / 30) ** 2))
    return tissue[..., None] * height * band + rng.normal(0, noise, (12, 14, 86)), tissue


def test_quality_of_known_signal_noise_and_damage():
    image, tissue = spot(height=0.8, noise=0.004)
    clean = quality_of(image, tissue, CHANNELS)
    assert (clean.kept, clean.dead, clean.saturated) == (70, 0, 0.0)
    assert clean.share == pytest.approx(70 / 168)
    assert clean.snr == pytest.approx(0.8 / 0.004, rel=0.15)
    inside = (AXIS >= 1600) & (AXIS <= 1700)
    area = np.trapezoid(image[tissue][:, inside][:, ::-1], AXIS[inside][::-1], axis=1)
    assert clean.median == pytest.approx(np.median(area), rel=1e-4)
    image = np.minimum(image, 0.69)
    image[3, 2:5] = 0.3
    image[4, 2:9, 10:20] = 0.7
    damaged = quality_of(image, tissue, CHANNELS)
    assert damaged.dead == 3
    assert damaged.saturated == pytest.approx(7 / 70)
    empty = quality_of(image, np.zeros_like(tissue), CHANNELS)
    assert (empty.kept, empty.dead) == (0, 0)
    picture = quality_of(np.full((4, 4, 3), 255, np.uint8), np.ones((4, 4), bool), Channels(3, names=("r", "g", "b")))
    assert np.isnan(picture.snr)
    assert np.isnan(picture.saturated)


def with_bands(info, arrays: SampleArrays) -> SampleArrays:
    image, tissue = spot(0.5, 0.01)
    return SampleArrays(image.astype("f4") + 0.001 * arrays.image[:12, :14], tissue, arrays.truth[:12, :14] & tissue)


def test_the_page_has_every_sample_count_and_problem(tmp_path, monkeypatch):
    pictures = iter([10, 10, 2 * 10**6, 10])
    monkeypatch.setattr(cohort_page, "EMBEDDED", 10**6)
    monkeypatch.setattr(cohort_page, "file_of", lambda *_, **__: b"p" * next(pictures, 1))
    source = MemorySource(4, (12, 14, 86), change=with_bands)
    splits = {"train": 0.5, "val": 0.25, "test": 0.25, "seed": 0}
    cohort = prepare(source, tmp_path / "c.zarr", splits=splits, progress=False)
    page = cohort_page.write_cohort_page(cohort, tmp_path / "c_preview")
    text = page.read_text()
    assert all(f"<h3>{info.name}</h3>" in text for info in cohort.infos)
    assert sorted(file.stem for file in (page.parent / "samples").iterdir()) == [info.name for info in cohort.infos]
    assert text.count("kept <b>70</b> pixels (42 %)") == 4
    assert text.count("data:image/png;base64") == 1 + 2  # what no longer has room is a file beside the page
    assert text.count('href="samples/') == 2
    assert '<tr><th scope="row">N</th>' in text
    assert "<td>2</td></tr>" in text  # of each class
    assert "http" not in text.replace("http-equiv", "")
    assert ("None found" in text) != ('role="note"' in text)
    assert len(text) < 10**7


def test_names_are_escaped_and_a_cohort_of_pictures_has_no_amide(tmp_path):
    source = MemorySource(4, (9, 9, 3))
    source.channels = lambda: Channels(3, names=("red", "green", "blue"))
    splits = {"train": 0.5, "val": 0.25, "test": 0.25, "seed": 0}
    cohort = prepare(source, tmp_path / "<b>c.zarr", splits=splits, progress=False)
    text = cohort_page.write_cohort_page(cohort, tmp_path / "p").read_text()
    assert "<b>c.zarr" not in text
    assert "SNR <b>" not in text
