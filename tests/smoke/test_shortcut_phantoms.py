"""Trained on a phantom with a misleading cue, a method that lives on the cue is named for it in the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from running import succeed

DIRECT = ("method=pixel_bce", "model=unet_small")
SMALL = ("data.source.size=32", "trainer.max_epochs=15", "trainer.accelerator=cpu", "trainer.devices=1")


def direct_report(root: Path, preset: str) -> str:
    run, cohort = root / "run", root / "cohort.zarr"
    places = (f"data.path={cohort}", f"hydra.run.dir={run}")
    succeed("train", f"source@data.source={preset}", *SMALL, *DIRECT, *places)
    return (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "sign"),
    [
        ("phantom_shortcut_array", "the maps show the group"),
        ("phantom_shortcut_area", "activation follows it"),
    ],
)
def test_a_method_that_follows_the_cue_is_named_for_it(tmp_path, preset, sign):
    assert sign in direct_report(tmp_path, preset)
