"""Things that run side by side, as many as there is room for: jobs of a sweep, or any other processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol, TypeVar

# Seconds that a job has for its last step and its checkpoint.
PATIENCE = 30.0


class Running(Protocol):
    """Something under way."""

    def ended(self) -> bool:
        """Whether it has come to its end. Asked again and again."""

    def stop(self, *, at_once: bool = False) -> None:
        """Ask it to end, or end it."""


J = TypeVar("J")
R = TypeVar("R", bound=Running)


def side_by_side(
    jobs: Iterable[J], has_room: Callable[[], bool], start: Callable[[J], R | None], pause: float = 0.05
) -> Iterator[R]:
    """Start jobs as room comes up, in their order, and hand each over when it has ended.

    A job is taken from `jobs` only when there is room for it, so that what has been learned from earlier ones may shape
    it. Whoever leaves early (an exception, a signal, `close()`) stops all that are running.

    Args:
        jobs: What is to be run.
        has_room: Whether a job may be taken now.
        start: Starts one, or gives None as long as there is too little room for this one.
        pause: Seconds between looks at those that run.

    Yields:
        What `start` gave, in the order in which they end.
    """
    queue, running = iter(jobs), list[R]()
    waiting = list[J]()  # the next job, if there was room, but too little for this one
    try:
        while True:
            while has_room() and (waiting := waiting or list(islice(queue, 1))):
                if (begun := start(waiting[0])) is None:
                    break
                running.append(begun)
                waiting = []
            if not running and not waiting:
                return
            ended = [job for job in running if job.ended()]
            for job in ended:
                running.remove(job)
                yield job
            if not ended:
                time.sleep(pause)
    finally:
        _stop(running)


def _stop(running: Sequence[Running]) -> None:
    """Let all end in order, at the same time; end those that do not."""
    for job in running:
        job.stop()
    deadline = time.monotonic() + PATIENCE
    left = list(running)
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = [job for job in left if not job.ended()]
    for job in left:
        job.stop(at_once=True)
