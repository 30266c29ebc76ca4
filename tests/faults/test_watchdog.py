"""Who watches whom: the parent, chosen at the start; heartbeats over several fits; words that name who is gone."""

from __future__ import annotations

import math
import os

import pytest
from torch.distributed import TCPStore

from compseg.faults import watchdog
from compseg.faults.watchdog import Heartbeats, Watchdog, has_launcher, torchrun_has_all

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("environment", "watches"),
    [
        ({}, False),
        ({"LOCAL_RANK": "0"}, False),  # Lightning's launcher, once it has started the others
        ({"LOCAL_RANK": "1"}, True),
        (TORCHRUN, True),
        ({"SLURM_PROCID": "1"}, False),
    ],
)
def test_only_a_rank_that_another_process_started_watches_its_parent(environment, watches):
    assert has_launcher(environment) == watches


@pytest.mark.parametrize(
    ("environment", "all_here"),
    [({**TORCHRUN, "WORLD_SIZE": "2"}, True), ({**TORCHRUN, "WORLD_SIZE": "4"}, False), ({"WORLD_SIZE": "2"}, False)],
)
def test_torchrun_ends_the_ranks_of_its_own_machine_alone(environment, all_here):
    assert torchrun_has_all(environment) == all_here


def test_what_training_adds_to_the_environment_makes_no_parent(monkeypatch):
    """From the second fit on, rank 0 of Lightning's launcher has a LOCAL_RANK; its shell may end."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    watch = Watchdog(lambda: [], print)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert watch._lost() == ""


@pytest.fixture
def store(monkeypatch) -> TCPStore:
    """One that outlives a fit, as torchrun's does."""
    monkeypatch.setattr(watchdog, "PERIOD", 0.01)
    kept = TCPStore("localhost", 0, is_master=True)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", str(kept.port))
    return kept


@pytest.mark.parametrize("word", ["left", "failed"])
def test_a_store_serves_several_fits(store, word):
    for fit in ("first", "second"):
        beats = Heartbeats(0, 1, fit)
        assert beats.lost() == ""
        beats.leave(word)
        assert not beats.is_alive()
    assert store.get("compseg/second/end/0") == word.encode()


def noted(beats: Heartbeats, word: str) -> bool:
    """Whether the thread has read that word of a rank; it waits until it has."""
    while beats.is_alive() and word not in beats._how:
        beats.join(0.01)
    return beats.is_alive()


@pytest.mark.parametrize(
    ("word", "lost"), [("left", ""), ("failed", "rank 1 on far ended with an error, which is in its own output")]
)
def test_a_rank_that_ends_is_named_if_it_failed(store, word, lost):
    store.set("compseg/fit/host/1", "far")
    store.set("compseg/fit/end/1", "")
    store.add("compseg/fit/beat/1", 1)
    beats = Heartbeats(0, 2, "fit")
    store.set("compseg/fit/end/1", word)
    assert noted(beats, word)
    assert beats.lost() == lost
    beats.leave("left")


def test_a_rank_without_a_heartbeat_and_a_silent_store_are_named(store, monkeypatch):
    monkeypatch.setattr(watchdog, "PERIOD", 1000)  # so that it notes nothing new
    store.set("compseg/fit/host/1", "far")
    store.set("compseg/fit/end/1", "")
    store.add("compseg/fit/beat/1", 1)
    beats = Heartbeats(0, 2, "fit")
    beats._answered, beats._seen = math.inf, [(b"1", math.inf), (b"1", -math.inf)]
    assert beats.lost() == "rank 1 on far has given no sign of life for 30 s"
    beats.leave("left")
    assert beats.lost() == "rank 0, at whose address the ranks have met, does not answer"
