"""Dashboards without a network: what W&B and TensorBoard hold after a run is read back."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from running import history_of, succeed, tiny

BLOCK, IDENT, HEADER = 32768, 7, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def wandb_records(path: Path) -> Iterator[bytes]:
    """A W&B file's records: a 7-byte ident, then fragments with checksum, length and type (LevelDB's log)."""
    content, at, parts = path.read_bytes(), IDENT, b""
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:  # the end of a block that no header fits in is padding
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        parts += content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (FULL, LAST):
            yield parts
            parts = b""


@pytest.mark.slow
def test_wandb_offline_without_a_key_holds_the_history(trained, tmp_path):
    from wandb.proto import wandb_internal_pb2

    run = tmp_path / "run"
    printed = succeed(
        "train", *tiny(trained.cohort, run), "logger=wandb", "evaluate=false", WANDB_API_KEY="", HOME=str(tmp_path)
    )
    assert "wandb sync" in printed
    (file,) = run.glob("wandb/offline-run-*/run-*.wandb")
    seen: dict[str, float] = {}
    for content in wandb_records(file):
        history = wandb_internal_pb2.Record.FromString(content).history
        items = {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in history.item}
        seen |= {key: value for key, value in items.items() if "/" in key}
    last = {key: value for key, value in history_of(run)[-1].items() if "/" in key}
    assert {key: seen[key] for key in last} == pytest.approx(last, rel=1e-5)


@pytest.mark.slow
def test_tensorboard_holds_the_history(trained, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = tmp_path / "run"
    succeed("train", *tiny(trained.cohort, run), "logger=tensorboard", "evaluate=false")
    events = accumulator.EventAccumulator(str(run / "tensorboard")).Reload()
    last = history_of(run)[-1]
    for key in ("train/loss", "val/loss", "val/x_disease"):
        assert events.Scalars(key)[-1].value == pytest.approx(last[key], rel=1e-5)
