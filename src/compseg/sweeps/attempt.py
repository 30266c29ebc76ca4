"""One attempt at a job: a process of its own, watched and written down."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from compseg.faults.lock import is_locked
from compseg.sweeps.jobs import DONE, read_job, recorded_overrides, write_record

OUTPUT = "output.txt"

# What Lightning or a queue may have left in the environment: the job would take itself for one of several ranks.
_RANKS = re.compile(
    r"LOCAL_RANK|NODE_RANK|GROUP_RANK|RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|MASTER_.*|PL_GLOBAL_SEED|PL_SEED_WORKERS"
    r"|SLURM_NTASKS|SLURM_PROCID|SLURM_LOCALID"
)
# Ends that were asked for, by exit code: the job goes on another time. A process that has no handler yet ends by the
# signal itself.
_ASKED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
STOPPED = {code: number.name for number in _ASKED for code in (-number, 128 + number)}
_COMPLAINT = re.compile(r"(compseg \w+.*?|[\w.]*(?:Error|Exception|Interrupt)): (?P<words>.+)")


class Attempt:
    """A job that is being run.

    Where a process is at work in the folder, one that outlived its killed sweep for example, it is waited for first.

    Args:
        folder: The run folder.
        overrides: What is written down of the job.
        command: Runs it.
        cwd: Where.
        environment: Variables beside those of this process.
        quiet: Write what the job prints to `output.txt` in its folder rather than passing it on.
    """

    def __init__(
        self,
        folder: Path,
        overrides: Sequence[str],
        command: Sequence[str],
        cwd: str,
        environment: Mapping[str, str] | None = None,
        *,
        quiet: bool = False,
    ) -> None:
        self.folder, self.overrides, self.command, self.cwd = folder, overrides, command, cwd
        self.environment = {**without_ranks(os.environ), **(environment or {})}
        self.quiet, self.complaint = quiet, ""
        self.waited = self.stopping = False
        self.process: subprocess.Popen[str] | None = None
        self._begin()

    def ended(self) -> bool:
        """Whether it is over; then it has been written down."""
        if self.process is None:
            return self.stopping or self._begin()
        code = self.process.poll()
        if code is None:
            return False
        self.copying.join(timeout=5)  # no longer: a rank that hangs may hold the stream open
        self._write_down(code)
        return True

    def stop(self, *, at_once: bool = False) -> None:
        """Ask the process to end, or end it. The job counts as unfinished."""
        self.stopping = True
        if self.process is not None:
            self.process.kill() if at_once else self.process.terminate()

    def _begin(self) -> bool:
        """Start the process if the folder is free; whether another has done the work in the meantime."""
        if is_locked(self.folder):
            self.waited = True
            return False
        if self.waited and recorded_overrides(self.folder) and read_job(self.folder).status in DONE:
            return True
        write_record(self.folder, self.overrides, "started")
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            self.command,
            cwd=self.cwd,
            env=self.environment,
            stdout=subprocess.PIPE if self.quiet else None,
            stderr=subprocess.STDOUT if self.quiet else subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self.copying = threading.Thread(target=self._copy, daemon=True)
        self.copying.start()
        return False

    def _write_down(self, code: int) -> None:
        seconds = round(time.monotonic() - self.began, 1)
        if code in STOPPED:
            write_record(self.folder, self.overrides, "stopped", f"stopped by {STOPPED[code]}", seconds)
        elif code:
            why = f"ended by signal {-code}" if code < 0 else self.complaint or f"exit code {code}"
            write_record(self.folder, self.overrides, "failed", why, seconds)
        elif (job := read_job(self.folder)).status == "pruned":
            write_record(self.folder, self.overrides, "pruned", job.why, seconds)
        else:
            write_record(self.folder, self.overrides, "finished", "", seconds)

    def _copy(self) -> None:
        """Pass on what the process says and keep its last complaint."""
        process = self.process
        assert process is not None
        with (self.folder / OUTPUT).open("a", encoding="utf-8") if self.quiet else nullcontext(sys.stderr) as out:
            for line in (process.stdout if self.quiet else process.stderr) or ():
                out.write(line)
                out.flush()
                if found := _COMPLAINT.fullmatch(line.strip()):
                    self.complaint = found["words"] if line.startswith("compseg ") else line.strip()


def without_ranks(given: Mapping[str, str]) -> dict[str, str]:
    """An environment without what would make a process take itself for one of several ranks."""
    return {name: value for name, value in given.items() if not _RANKS.fullmatch(name)}
