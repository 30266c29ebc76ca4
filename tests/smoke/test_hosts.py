"""Two machines: network namespaces with an address each, joined by a cable, and torchrun on both."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from running import HANGS, environment, history_of, tiny

PORT = 29473


class Hosts:
    """Two hosts, 0 and 1, with one file system and no network but the cable between them."""

    def __init__(self, name: str) -> None:
        self.spaces = [f"{name}{host}" for host in range(2)]
        self.cards = [f"{name}card{host}" for host in range(2)]
        self.started: list[subprocess.Popen[str]] = []

    def build(self) -> None:
        for space in self.spaces:
            ip("netns", "add", space)
        ip("link", "add", self.cards[0], "type", "veth", "peer", "name", self.cards[1])
        for host, (space, card) in enumerate(zip(self.spaces, self.cards, strict=True)):
            ip("link", "set", card, "netns", space)
            ip("-n", space, "address", "add", f"10.99.99.{host + 1}/24", "dev", card)
            for device in ("lo", card):
                ip("-n", space, "link", "set", device, "up")

    def train(self, folder: Path, *arguments: str) -> list[subprocess.Popen[str]]:
        """Start one training run on both, as docs/how-to/machines.md says."""
        self.started = [
            subprocess.Popen(
                [
                    *("ip", "netns", "exec", space),
                    *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"),
                    *(f"--node-rank={host}", "--master-addr=10.99.99.1", f"--master-port={PORT}"),
                    *("-m", "compseg.train", *arguments, "trainer.num_nodes=2"),
                ],
                env=environment(GLOO_SOCKET_IFNAME=card),
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for host, (space, card) in enumerate(zip(self.spaces, self.cards, strict=True))
        ]
        return self.started

    def kill(self, host: int) -> None:
        """All of a host's processes at once, without warning."""
        for process in ip("netns", "pids", self.spaces[host]).split():
            os.kill(int(process), 9)

    def cut_the_cable(self) -> None:
        """Neither host hears of the other again, not even that it is gone."""
        ip("-n", self.spaces[1], "link", "set", self.cards[1], "down")

    def destroy(self) -> None:
        for host, space in enumerate(self.spaces):
            self.kill(host)
            ip("netns", "delete", space)  # and the cable with it
        for process in self.started:
            process.communicate()


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if shutil.which("ip") is None:
        pytest.skip("no two hosts: the command ip (iproute2) is not there to make network namespaces with")
    made = Hosts(f"cs{os.getpid() % 100000}")
    try:
        made.build()
    except subprocess.CalledProcessError as error:
        subprocess.run(["ip", "netns", "delete", made.spaces[0]], capture_output=True, check=False)
        pytest.skip(f"no two hosts: network namespaces are not permitted here ({error.stderr.strip()})")
    yield made
    made.destroy()


def arguments(cohort: Path, *more: str) -> list[str]:
    return tiny(cohort, Path("given"), "data.batch_size=4", "evaluation.split=none", *more)


def wait_for_epochs(outputs: Path, count: int, running: list[subprocess.Popen[str]]) -> Path:
    """Until so many are done; the run folder."""
    deadline = time.monotonic() + HANGS
    while True:
        assert time.monotonic() < deadline
        for process in running:
            assert process.poll() is None, process.communicate()[1]
        runs = [path.parent for path in outputs.glob("*/history.csv")]
        if runs and len(history_of(runs[0])) >= count:
            return runs[0]
        time.sleep(0.1)


def complaint_of(process: subprocess.Popen[str]) -> str:
    """The one line of a host that has to end by itself within a minute."""
    said = process.communicate(timeout=HANGS)[1].splitlines()
    assert process.returncode == 1
    (line,) = [line for line in said if line.startswith("compseg train")]
    assert "trainer.resume=auto" in line
    return line


def own_tracebacks(said: str) -> list[str]:
    """Those of training; torchrun logs one of its own, with a prefix, where the other host has left before it."""
    return [line for line in said.splitlines() if line.startswith("Traceback")]


@pytest.mark.slow
def test_two_hosts_train_one_model_and_a_killed_one_ends_the_other(hosts, tmp_path):
    """The cohort is made on first use, once; the run has one folder; it goes on after a host was killed."""
    fresh = [item for item in arguments(tmp_path / "cohort.zarr") if not item.startswith("hydra.run.dir")]
    running = hosts.train(tmp_path, *fresh, "trainer.max_epochs=500")
    run = wait_for_epochs(tmp_path / "outputs", 2, running)
    hosts.kill(1)
    assert "lost contact with another rank" in complaint_of(running[0])
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == [run.name]

    done = len(history_of(run))
    again = (f"hydra.run.dir={run}", "trainer.resume=auto", f"trainer.max_epochs={done + 2}")
    for process in hosts.train(tmp_path, *fresh, *again):
        said = process.communicate(timeout=HANGS)[1]
        assert process.returncode == 0, said
        assert own_tracebacks(said) == []
    assert [row["epoch"] for row in history_of(run)] == list(range(done + 2))
    assert (run / "segmenter" / "weights.safetensors").is_file()


@pytest.mark.slow
def test_a_host_that_is_heard_of_no_more_ends_the_other(hosts, trained, tmp_path):
    running = hosts.train(
        tmp_path, *arguments(trained.cohort, "trainer.max_epochs=500", f"hydra.run.dir={tmp_path}/outputs/run")
    )
    wait_for_epochs(tmp_path / "outputs", 1, running)
    hosts.cut_the_cable()
    assert "rank 1 on " in (said := complaint_of(running[0]))
    assert "no sign of life" in said
    assert "rank 0, at whose address the ranks have met, does not answer" in complaint_of(running[1])


def test_a_wrong_number_of_processes_is_refused(trained, tmp_path):
    """Two that take themselves for one each would write over one another."""
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "compseg.train",
    ]
    done = subprocess.run(
        [*torchrun, *tiny(trained.cohort, tmp_path / "run")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    assert done.returncode == 1
    assert "torchrun has started 2 processes, trainer.num_nodes x trainer.devices are 1 x 1" in done.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()
