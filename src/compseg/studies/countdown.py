"""How many jobs of a sweep are done, and how long the rest takes. Without numpy: `compseg.train --help` imports it."""

from __future__ import annotations

import time

from compseg.log import in_words


class Countdown:
    """How many jobs of a sweep have ended, and how long the others will take, by the pace so far.

    Args:
        total: Jobs in all.
    """

    def __init__(self, total: int) -> None:
        self.total, self.ended, self.begun = total, 0, time.monotonic()

    def one_more(self) -> str:
        """`3 of 6 jobs, about 2 min left`, when a job has ended."""
        self.ended += 1
        left = (time.monotonic() - self.begun) / self.ended * (self.total - self.ended)
        return f"{self.ended} of {self.total} jobs" + f", about {in_words(left)} left" * (self.ended < self.total)
