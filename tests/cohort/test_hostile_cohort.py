"""What a stranger may have written into a cohort: whoever reads it says what is wrong, and where."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from memory_source import MemorySource

from compseg.cohort import Cohort, find_problems, prepare, refuse_fatal
from compseg.errors import CompsegError
from running import run_here


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "c.zarr"
    prepare(MemorySource(size=(12, 12, 3)), path, progress=False)
    return path


def put(name: str, content: bytes) -> Callable[[], object]:
    return lambda: Path(name).write_bytes(content)


def table(change: Callable[[dict[str, Any]], object]) -> Callable[[], object]:
    """Change the attributes of the cohort."""

    def edit() -> None:
        path = Path("zarr.json")
        root = json.loads(path.read_text())
        change(root["attributes"]["compseg"])
        path.write_text(json.dumps(root))

    return edit


def first(**values: Any) -> Callable[[], object]:
    return table(lambda a: a["samples"][0].update(values))


def channels(**values: Any) -> Callable[[], object]:
    return table(lambda a: a["channels"].update(values))


def array(**values: Any) -> Callable[[], object]:
    """Change what the image of a training sample says of itself."""

    def edit() -> None:
        rows = json.loads(Path("zarr.json").read_text())["attributes"]["compseg"]["samples"]
        name = next(row["name"] for row in rows if row["split"] == "train")
        path = Path("samples", name, "image/zarr.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return edit


# What a stranger may have written into a cohort.
HOSTILE: dict[str, Callable[[], object]] = {
    "no JSON": put("zarr.json", b"{"),
    "not UTF-8": put("zarr.json", b"\xff\xfe{}"),
    "a list": put("zarr.json", b"[]"),
    "depth": put("zarr.json", b"[" * 100_000 + b"]" * 100_000),
    "attributes a list": put("zarr.json", b'{"zarr_format": 3, "node_type": "group", "attributes": []}'),
    "samples a dict": table(lambda a: a.update(samples={"a": 1})),
    "samples numbers": table(lambda a: a.update(samples=[1, 2])),
    "no samples": table(lambda a: a.update(samples=[])),
    "no channels": table(lambda a: a.pop("channels")),
    "schema a word": table(lambda a: a.update(schema="x")),
    "an unknown rule": table(lambda a: a.update(tissue_rule="x")),
    "classes a list": table(lambda a: a.update(classes=[1])),
    "pixel size a word": table(lambda a: a.update(pixel_size="big")),
    "dtype of objects": table(lambda a: a.update(dtype="object")),
    "channels a text": channels(count="8"),
    "channels negative": channels(count=-8),
    "channels beyond memory": channels(count=10**12),
    "positions too few": channels(values=[1.0, 2.0]),
    "positions of words": channels(values=["a"] * 3),
    "positions not finite": channels(values=[float("nan")] * 3),
    "names too many": channels(values=[], names=["a"] * 9),
    "label a text": first(label="1"),
    "label NaN": first(label=float("nan")),
    "label 7": first(label=7),
    "label true": first(label=True),
    "split negative": first(split=-1),
    "split unknown": first(split="trian"),
    "shape short": first(shape=[20]),
    "shape negative": first(shape=[-1, 12, 3]),
    "shape a text": first(shape="abc"),
    "shape beyond memory": first(shape=[10**9, 10**9, 3]),
    "shape of another": table(lambda a: [row.update(shape=[21, 12, 3]) for row in a["samples"]]),
    "name a number": first(name=3),
    "name empty": first(name=""),
    "no name": table(lambda a: a["samples"][0].pop("name")),
    "group a number": first(group=3),
    "patient a list": first(patient=["p"]),
    "checksums a list": first(checksums=["x"]),
    "no checksums": first(checksums={}),
    "an unknown field": first(more=1),
    "array of integers": array(data_type="int64"),
    "array beyond memory": array(shape=[10**6, 10**6, 3]),
    "array flat": array(shape=[20, 20]),
    "array of blocks of nothing": array(chunk_grid={"name": "regular", "configuration": {"chunk_shape": [0, 0, 0]}}),
    "an unknown codec": array(codecs=[{"name": "evil"}]),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_cohort(sound, tmp_path, monkeypatch, case):
    path = shutil.copytree(sound, tmp_path / "c.zarr")
    monkeypatch.chdir(path)
    HOSTILE[case]()
    try:
        said = [str(problem) for problem in find_problems(path)]
        with pytest.raises(CompsegError, match=r"c\.zarr: "):
            refuse_fatal(Cohort.open(path))
    except CompsegError as error:
        said = [str(error)]
        assert "c.zarr" in said[0]
    assert said
    assert not any("\n" in line for line in said)


def test_the_verbs_end_in_one_line(sound, tmp_path, monkeypatch, capfd):
    path = shutil.copytree(sound, tmp_path / "c.zarr")
    monkeypatch.chdir(path)
    HOSTILE["label NaN"]()
    assert run_here("check", f"cohort={path}") == 1
    said = "damaged, or something else (samples[0].label: nan cannot be meant); prepare the cohort again"
    assert capfd.readouterr().err == f"compseg check: {path}/zarr.json: {said}\n"
