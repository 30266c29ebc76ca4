"""Dashboards without a network: what W&B and TensorBoard hold after a run is read back."""

from __future__ import annotations

import json
import os
import queue
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pytest
import yaml
from PIL import Image as Pillow

from compseg.config import compose
from compseg.monitor.dashboards import Dashboards, wandb_logger
from running import HANGS, environment, history_of, run_verb, succeed, tiny

BLOCK, IDENT, HEADER = 32768, 7, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
SWEEP = Path(__file__).parents[2] / "docs/how-to/wandb-sweep.yaml"
# matplotlib keeps its list of fonts in the home directory, and takes long to make it.
NO_KEY = {"WANDB_API_KEY": "", "MPLCONFIGDIR": matplotlib.get_cachedir()}


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


class Offline(NamedTuple):
    """What an offline run of W&B holds: values by name in the order they were logged, and the rest as records."""

    folder: Path
    history: dict[str, list]
    rows: list[dict]
    config: dict
    records: dict[str, list]

    @property
    def exit_code(self) -> int:
        return self.records["exit"][-1].exit_code


def read_wandb(run: Path, run_id: str = "*") -> Offline:
    from wandb.proto import wandb_internal_pb2

    (file,) = run.glob(f"wandb/offline-run-*/run-{run_id}.wandb")
    history, rows, config, records = defaultdict(list), [], {}, defaultdict(list)
    for content in wandb_records(file):
        record = wandb_internal_pb2.Record.FromString(content)
        kind = record.WhichOneof("record_type")
        records[kind].append(getattr(record, kind))
        if kind == "history":
            rows.append(row := {})
            for item in record.history.item:
                *outer, last = item.nested_key or [item.key]
                within = row
                for key in outer:
                    within = within.setdefault(key, {})
                within[last] = json.loads(item.value_json)
            for key, value in row.items():
                history[key].append(value)
        if kind == "config":
            config |= {item.key: json.loads(item.value_json) for item in record.config.update}
    return Offline(file.parent, history, rows, config, records)


@pytest.fixture(scope="module")
def dashboards(trained, tmp_path_factory):
    """A run with both dashboards and pictures of each epoch."""
    home = tmp_path_factory.mktemp("dashboards")
    run = home / "run"
    both = ("logger=[wandb,tensorboard]", "callbacks.pictures.every=1")
    printed = succeed("train", *tiny(trained.cohort, run, *both), HOME=str(home), **NO_KEY)
    return run, printed


@pytest.mark.slow
def test_a_run_without_a_key_is_offline_and_can_be_sent_later(dashboards):
    run, printed = dashboards
    assert "offline, for there is no key" in printed
    kept = read_wandb(run)
    assert kept.exit_code == 0
    assert kept.records["run"][0].project == "compseg"
    assert kept.records["run"][0].display_name == "run"
    # W&B's own tool takes the folder for a run that is ready to be sent.
    told = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", "--dry-run", str(kept.folder)],
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=True,
        env=environment(HOME=str(run), **NO_KEY),
    )
    assert kept.folder.name in told.stdout + told.stderr


@pytest.mark.slow
def test_wandb_holds_config_and_history(dashboards):
    run, _ = dashboards
    kept = read_wandb(run)
    assert kept.config["optimizer"]["_target_"] == "torch.optim.AdamW"
    assert (kept.config["model"]["width"], kept.config["seed"], kept.config["channels"]) == (8, 0, 8)
    for epoch, row in enumerate(history_of(run)):
        logged = {key: value for key, value in row.items() if "/" in key}
        assert {key: kept.history[key][epoch] for key in logged} == pytest.approx(logged, rel=1e-5)
    axes = {metric.glob_name: metric.step_metric for metric in kept.records["metric"]}
    assert all(axes[f"{section}/*"] == "epoch" for section in ("train", "val", "collapse", "figures", "activation"))


@pytest.mark.slow
def test_pictures_are_the_same_in_the_folder_and_on_both_dashboards(dashboards):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run, _ = dashboards
    kept = read_wandb(run)
    events = accumulator.EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0}).Reload()
    for name in ("gallery", "activations", "roc", "spectra"):
        assert [row["epoch"] for row in kept.rows if f"figures/{name}" in row] == [0, 1]
        for epoch, sent in enumerate(kept.history[f"figures/{name}"]):
            here = pixels(run / "figures" / "epochs" / f"{name}_{epoch:04d}.png")
            assert here.std() > 0
            np.testing.assert_array_equal(here, pixels(kept.folder / "files" / sent["path"]))
            shown = run / "shown.png"
            shown.write_bytes(events.Images(f"figures/{name}")[epoch].encoded_image_string)
            np.testing.assert_array_equal(here, pixels(shown))


@pytest.mark.slow
def test_tensorboard_and_wandb_hold_the_same_scalars_and_histograms(dashboards):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run, _ = dashboards
    kept = read_wandb(run)
    events = accumulator.EventAccumulator(str(run / "tensorboard"), size_guidance={"histograms": 0}).Reload()
    scalars = {key for key, values in kept.history.items() if "/" in key and isinstance(values[-1], int | float)}
    scalars -= {"trainer/global_step"}
    assert {"train/loss", "val/x_disease", "val/x_auc", "collapse/separation", "test/area_auc"} <= scalars
    for key in scalars:
        assert [event.value for event in events.Scalars(key)] == pytest.approx(kept.history[key], rel=1e-5), key
    for name in ("healthy", "disease"):
        assert len(kept.history[f"activation/{name}"]) == 2
        for epoch, sent in enumerate(kept.history[f"activation/{name}"]):
            counts = np.array(sent["values"])
            drawn = events.Histograms(f"activation/{name}")[epoch].histogram_value
            assert drawn.num == pytest.approx(counts.sum())
            assert counts.sum() > 1000  # tissue pixels of 14 spots


@pytest.mark.slow
def test_results_and_the_segmenter_are_there(dashboards):
    run, _ = dashboards
    kept = read_wandb(run)
    metrics = json.loads((run / "metrics.json").read_text())
    assert {key: kept.history[key][-1] for key in metrics} == pytest.approx(metrics, rel=1e-6)
    for name in ("roc", "gallery", "spectra"):
        (sent,) = kept.history[f"test/{name}"]
        np.testing.assert_array_equal(
            pixels(run / "figures" / f"{name}.png"), pixels(kept.folder / "files" / sent["path"])
        )
    (artifact,) = kept.records["artifact"]
    described = json.loads((run / "segmenter/segmenter.json").read_text())
    assert (artifact.name, artifact.type) == ("segmenter", "model")
    assert json.loads(artifact.metadata) == described
    assert described["threshold"]["value"] == metrics["threshold"]  # the one that evaluation has fitted
    copied = {item.path: Path(item.local_path) for item in artifact.manifest.contents}
    assert set(copied) == {"segmenter.json", "weights.safetensors"}
    for name, file in copied.items():
        assert file.read_bytes() == (run / "segmenter" / name).read_bytes()
        assert run in file.parents  # the run's folder can be moved and sent from elsewhere


def pixels(file: Path) -> np.ndarray:
    with Pillow.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


BOMB = """
from pytorch_lightning.callbacks import Callback

class Bomb(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise RuntimeError("boom")
"""


@pytest.mark.slow
def test_a_crash_on_two_ranks_is_one_crashed_run(trained, tmp_path):
    """Nothing of W&B's is left by the other rank, and what rank 0 had logged before is there."""
    (tmp_path / "bomb.py").write_text(BOMB)
    run = tmp_path / "run"
    two = ("trainer.devices=2", "data.batch_size=4", "logger=wandb", "+callbacks.bomb._target_=bomb.Bomb")
    done = run_verb("train", *tiny(trained.cohort, run, *two), HOME=str(tmp_path), PYTHONPATH=str(tmp_path), **NO_KEY)
    assert done.returncode != 0
    assert "boom" in done.stderr
    kept = read_wandb(run)  # which finds one run, no more
    assert kept.exit_code == 1
    assert len(kept.history["train/loss"]) == 1
    assert not list(tmp_path.glob("wandb*"))


@pytest.fixture
def no_key(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_RUN_ID", "WANDB_RUN_GROUP", "WANDB_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_DATA_DIR", "")  # so that what is set below is undone
    monkeypatch.setenv("HOME", str(tmp_path))


def asked_of(logger) -> dict:
    """What the logger will ask W&B for."""
    return logger._wandb_init


def test_a_job_of_a_sweep_is_grouped_and_named_by_the_sweeps_folder(no_key, tmp_path):
    job, alone = tmp_path / "constants" / "3", tmp_path / "alone"
    for folder in (job, alone):
        folder.mkdir(parents=True)
    (job / "job.json").write_text("{}")
    asked = [asked_of(wandb_logger(str(folder))) for folder in (job, alone)]
    assert [(options["group"], options["name"]) for options in asked] == [("constants", "constants/3"), (None, "alone")]


def test_loggers_take_what_the_command_line_gives_them(no_key, tmp_path):
    options = [f"logger.{name}.save_dir={tmp_path}" for name in ("wandb", "tensorboard")]
    cfg = compose("train", ["logger=[wandb,tensorboard]", "+logger.wandb.tags=[pilot]", *options])
    wandb, tensorboard = Dashboards.of(cfg.logger).loggers
    assert asked_of(wandb)["tags"] == ["pilot"]
    assert type(asked_of(wandb)["tags"]) is list  # W&B takes no ListConfig
    assert Path(tensorboard.log_dir) == tmp_path / "tensorboard"
    assert Dashboards.of(compose("train").logger).loggers == []


def test_a_resumed_run_is_the_same_run_there_too(no_key, tmp_path, monkeypatch):
    first = asked_of(wandb_logger(str(tmp_path)))["id"]
    assert first
    assert asked_of(wandb_logger(str(tmp_path)))["id"] == first
    monkeypatch.setenv("WANDB_RUN_ID", "agents")
    assert asked_of(wandb_logger(str(tmp_path)))["id"] is None  # W&B takes the agent's


def send_losses(logger, init: int | None, values: list[float]) -> None:
    with Dashboards.of(logger, init) as dashboards:
        dashboards.describe({"init": init})
        for epoch, value in enumerate(values):
            for each in dashboards.loggers:
                each.log_metrics({"val/loss": value, "epoch": epoch}, step=epoch)


def test_several_inits_are_runs_of_their_own_beside_that_of_the_results(no_key, tmp_path, monkeypatch):
    """In one process, one after the other; a resume adds to them."""
    import wandb

    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "run"
    options = [f"logger.{name}.save_dir={run}" for name in ("wandb", "tensorboard")]
    logger = compose("train", ["logger=[wandb,tensorboard]", *options]).logger
    losses = {1: [0.7, 0.6], 2: [0.5, 0.4]}
    with Dashboards.of(logger) as whole:  # open around them all, as the verb has it
        for init, values in losses.items():
            send_losses(logger, init, values)
        whole.results({"val/loss": 0.4, "test/area_auc": 1.0})
    wandb.teardown()  # its service writes files behind our back, and has written all when it ends
    own = asked_of(wandb_logger(str(run)))["id"]
    for init, values in losses.items():
        kept = read_wandb(run, f"{own}-init{init}")
        assert (kept.records["run"][0].display_name, kept.records["run"][0].run_group) == (f"run/init{init}", "run")
        assert (kept.config["init"], kept.exit_code) == (init, 0)
        assert kept.history["val/loss"] == values
        events = accumulator.EventAccumulator(str(run / "tensorboard" / f"init{init}")).Reload()
        assert [event.value for event in events.Scalars("val/loss")] == pytest.approx(values)
    kept = read_wandb(run, own)
    assert (kept.records["run"][0].display_name, kept.records["run"][0].run_group) == ("run", "")
    assert kept.history["test/area_auc"] == [1.0]
    assert asked_of(wandb_logger(str(run), init=2))["id"] == f"{own}-init2"


@pytest.mark.slow
def test_a_run_of_several_inits_shows_each_and_its_own_results(trained, tmp_path):
    run = tmp_path / "run"
    several = ("n_init=2", "logger=wandb", "callbacks.pictures.every=0", "evaluation.report=false")
    succeed("train", *tiny(trained.cohort, run, *several), HOME=str(tmp_path), **NO_KEY)
    own = (run / "wandb" / "run_id").read_text()
    for init in (1, 2):
        kept = read_wandb(run, f"{own}-init{init}")
        rows = history_of(run / "inits" / str(init))
        assert kept.history["val/loss"] == pytest.approx([row["val/loss"] for row in rows], rel=1e-5)
    kept = read_wandb(run, own)
    assert kept.config["seed"] == yaml.safe_load((run / "config.yaml").read_text())["seed"]
    assert "train/loss" not in kept.history
    assert "test/area_auc" in kept.history
    assert kept.records["artifact"][0].name == "segmenter"


def test_inits_of_a_sweeps_job_are_grouped_by_the_job(no_key, tmp_path):
    job = tmp_path / "constants" / "3"
    job.mkdir(parents=True)
    (job / "job.json").write_text("{}")
    asked = asked_of(wandb_logger(str(job), init=2))
    assert (asked["group"], asked["name"]) == ("constants/3", "constants/3/init2")


def test_an_agents_sweep_gets_no_runs_that_it_has_not_asked_for(no_key, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "agents")
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    asked = asked_of(wandb_logger(str(tmp_path), init=1))
    assert (asked["id"], asked["mode"]) == ("agents-init1", "disabled")


@pytest.mark.slow
def test_wandbs_own_agent_runs_the_documented_sweep(trained, tmp_path, monkeypatch):
    """The agent is W&B's; only the server that it would ask for values is made up."""
    from wandb import wandb_agent
    from wandb.apis.public import sweeps

    sweep = yaml.safe_load(SWEEP.read_text())
    arguments = tiny(trained.cohort, tmp_path, "trainer.max_epochs=1", "evaluation.split=none")
    small = dict(item.split("=", 1) for item in arguments if not item.startswith("hydra.run.dir"))
    width = sweep["parameters"]["model.width"]["values"][1]
    values = {**small, "optimizer.lr": 0.003, "model.width": width}
    order = {"type": "run", "run_id": "theirs", "program": sweep["program"]}
    orders = [{**order, "args": {key: {"value": value} for key, value in values.items()}}]
    monkeypatch.setattr(sweeps, "_sweep_with_runs", lambda *_: {"config": yaml.safe_dump(sweep)})
    monkeypatch.setattr(sweeps, "_register_agent", lambda *_, **__: {"id": "agent"})
    monkeypatch.setattr(sweeps, "_agent_heartbeat", lambda *args: [orders.pop(0)] if orders and not args[3] else [])
    monkeypatch.setattr(wandb_agent.wandb, "Api", lambda *_, **__: None)
    monkeypatch.setattr(wandb_agent.Agent, "POLL_INTERVAL", 0.2)
    monkeypatch.chdir(tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SWEEP_ID": "s1", "PATH": path, **NO_KEY}
    for name, value in {**settings, "WANDB_RUN_ID": "", "WANDB_SWEEP_PARAM_PATH": "", "WANDB_DATA_DIR": ""}.items():
        monkeypatch.setenv(name, value)
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_DATA_DIR"):
        monkeypatch.delenv(name)
    wandb_agent.Agent(None, queue.Queue(), sweep_id="s1", count=1).run()

    (run,) = (tmp_path / "outputs/wandb_sweep").iterdir()
    kept = read_wandb(run)
    # A folder for each run, under the name that W&B knows it by.
    assert run.name == kept.records["run"][0].run_id == "theirs"
    assert kept.exit_code == 0
    assert (kept.config["model"]["width"], kept.config["optimizer"]["lr"]) == (width, 0.003)
    assert len(kept.history["val/loss"]) == 1  # what the sweep goes by
