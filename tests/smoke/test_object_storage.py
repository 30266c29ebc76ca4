"""The commands of docs/how-to/object-storage.md, run as they are written, against a server that speaks S3."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from object_storage import s3_server
from running import run_verb

PAGE = Path(__file__).parents[2] / "docs/how-to/object-storage.md"
# What makes the default run small enough for a test.
SMALL = (
    "model.width=4",
    "data.crop=12",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "trainer.devices=1",
    "data.cache=none",
)


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["sample,image,label,split"]
    for i in range(24):
        np.save(tmp_path / f"{i}.npy", rng.random((16, 16, 4), dtype=np.float32) + (i % 2))
        rows.append(f"s{i},{i}.npy,{i % 2},{('train', 'train', 'val', 'test')[i // 2 % 4]}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")


@pytest.mark.slow
@pytest.mark.usefixtures("images")
def test_every_command_runs_as_written(tmp_path):
    blocks = re.findall(r"```\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("python -m compseg.")]
    assert len(lines) == 5
    printed = {}
    with s3_server("my-bucket") as environment:
        for line in lines:
            verb, *arguments = shlex.split(line.removeprefix("python -m compseg."))
            more = (*SMALL, "data.workers=1", "data.batch_size=4") if verb == "train" else ()
            done = run_verb(verb, *arguments, *more, cwd=tmp_path, **environment)
            assert done.returncode == 0, f"{line}\n{done.stderr[-3000:]}"
            printed[verb] = done.stdout
    assert "s3://my-bucket/mine.zarr: uploaded" in printed["prepare"]
    assert printed["check"] == "s3://my-bucket/mine.zarr: sound, 24 samples\n"
    assert (tmp_path / "outputs/remote/report.html").is_file()
    assert len((tmp_path / "maps/areas.csv").read_text().splitlines()) == 25
