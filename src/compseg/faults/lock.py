"""A run folder belongs to one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from compseg.errors import CompsegError
from compseg.files import remove_partials

LOCK = ".run.lock"


@contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Hold a run folder while training in it. The lock of a process that is killed ends with the process.

    What such a process has left half-written is removed. On a file system without locks nothing is held.

    Args:
        run: The run folder.

    Raises:
        CompsegError: If another process trains there, for example one that outlived its killed sweep.
    """
    lock = FileLock(run / LOCK)
    try:
        lock.acquire(timeout=1)  # longer than `is_locked` holds it
    except Timeout:
        raise CompsegError(
            f"{run}: another process is training in this folder; wait for it or give another hydra.run.dir"
        ) from None
    # Some network file systems have no locks; there a run without one is better than no run.
    except (OSError, NotImplementedError):
        pass
    remove_partials(run)
    try:
        yield
    finally:
        lock.release()


def is_locked(run: Path) -> bool:
    """Whether a process is training in a run folder."""
    # `FileLock` would make the file, and asking must leave the folder as it is.
    if not (run / LOCK).is_file():
        return False
    lock = FileLock(run / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False
    lock.release()
    return False
