"""One run folder for the ranks that torchrun has started, and another one for their next run."""

from __future__ import annotations

import itertools

import pytest
from hydra import compose, initialize_config_dir
from torch.distributed import TCPStore

from compseg.config import verbs
from compseg.config.literals import quoted


def test_ranks_agree_on_each_run_of_a_process(monkeypatch):
    store = TCPStore("localhost", 0, is_master=True)
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "localhost", "MASTER_PORT": store.port}.items():
        monkeypatch.setenv(name, str(value))
    ranks = []
    for _ in range(2):
        monkeypatch.setattr(verbs, "_RUNS", itertools.count())
        ranks.append([verbs._started("%f"), verbs._started("%f")])
    assert ranks[0] == ranks[1]
    assert len(set(ranks[0])) == 2


@pytest.mark.parametrize(("name", "folder"), [("compseg", "compseg"), ("../my run", "my_run"), ("日本/1", "日本_1")])
def test_a_runs_name_is_one_folder(name, folder):
    verbs.register()
    with initialize_config_dir(str(verbs.conf_dir()), version_base="1.3"):
        cfg = compose("train", [f"name={quoted(name)}"], return_hydra_config=True)
    assert [place.split(f"{folder}_")[0] for place in (cfg.hydra.run.dir, cfg.hydra.sweep.dir)] == ["outputs/"] * 2
