"""One run folder for the ranks that torchrun has started, and another one for their next run."""

from __future__ import annotations

import itertools

from torch.distributed import TCPStore

from compseg.config import verbs


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
