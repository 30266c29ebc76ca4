"""What a run says: once, from rank zero, on the console and in `train.log`."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import textwrap
import time
import warnings
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

LOG = logging.getLogger("compseg")


class Loading:
    """Tells somebody who waits what is imported, every two seconds, until something else is told.

    It stands among Python's finders, because an import asks them and nobody else.

    Args:
        name: Of the verb.
        stream: A terminal.
    """

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name, self.stream, self.begun = name, stream, time.monotonic()
        self.told = self.begun
        print(f"compseg {name}: loading takes some seconds", file=stream, flush=True)

    def find_spec(self, module: str, *_: Any) -> None:
        """Finds nothing."""
        if (now := time.monotonic()) > self.told + 2:
            self.told, library = now, module.partition(".")[0]
            print(f"compseg {self.name}: loading {library}, {now - self.begun:.0f} s", file=self.stream, flush=True)

    @classmethod
    def end(cls) -> None:
        """Tell no more: a line in a bar would break it."""
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, cls)]


def log(message: str) -> None:
    """Log a line, on rank zero alone."""
    Loading.end()
    if rank() == 0:
        LOG.info(message)


def detail(message: str) -> None:
    """Log a line that `train.log` has and the console has not, on rank zero alone."""
    if rank() == 0:
        LOG.debug(message)


class Wrapped(logging.Formatter):
    """Lines on a terminal are broken between words; in a file they stay whole, for whoever searches it."""

    def format(self, record: logging.LogRecord) -> str:
        """A line, or several."""
        return wrapped(super().format(record))


class Unrepeated(logging.Filter):
    """Leaves out a line that was told just before: what is built twice would say twice where its weights are from."""

    told = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is another line."""
        before, self.told = self.told, record.getMessage()
        return self.told != before


def wrapped(text: str) -> str:
    """Text with its lines broken between words, where a terminal shows it."""
    if not sys.stdout.isatty():
        return text
    width = shutil.get_terminal_size().columns
    parts = (
        textwrap.wrap(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False) or [""]
        for line in text.splitlines()
    )
    return "\n".join(line for lines in parts for line in lines)


def terminal() -> TextIO | None:
    """That of somebody who waits, if there is one: stderr, or stdout for a job whose stderr its sweep reads."""
    return next((stream for stream in (sys.stderr, sys.stdout) if stream.isatty()), None)


def console(**options: Any) -> Console:
    """Where what moves is shown: that terminal, else stderr. Options are rich's."""
    from rich.console import Console

    Loading.end()
    return Console(stderr=terminal() is not sys.stdout, **options)


def in_words(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def rank() -> int:
    """The rank of this process among all that train together.

    Lightning knows it best, because a strategy sets it; but it takes seconds to import, so before it is imported the
    environment answers, as Lightning itself would read it.
    """
    lightning = getattr(sys.modules.get("lightning_utilities.core.rank_zero"), "rank_zero_only", None)
    known: int | None = getattr(lightning, "rank", None)
    if known is not None:
        return known
    # RANK first: torchrun counts it over all machines, and LOCAL_RANK from 0 on each.
    return int(next((os.environ[key] for key in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if key in os.environ), "0"))


def quiet_libraries() -> None:
    """Silence what no user can act on: Lightning's notices (devices, tips) and warnings about its own internals."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        r".*treespec, LeafSpec.*",
        # None are needed where samples are cached.
        r".*does not have many workers.*",
        r".*The number of training batches.*",
        r".*your dataloader is not resumable.*",  # it is: see `compseg.batches.loader.ResumableLoader`
        r".*module\(s\) in eval mode at the start of training.*",  # frozen layers are, on purpose
        # As in any run that is resumed.
        r".*Checkpoint directory .* exists and is not empty.*",
        # What is logged is the same on all ranks already.
        r".*recommended to use `self.log.*sync_dist=True.*",
        r".*`broadcast_buffers` is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message=message)
