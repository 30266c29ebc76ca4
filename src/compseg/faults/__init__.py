"""What keeps a run whole when the world around it is not: stop signals, a watchdog over ranks, a lock on the folder."""

from compseg.faults.lock import is_locked, run_lock
from compseg.faults.signals import StopSignals

__all__ = ["StopSignals", "is_locked", "run_lock"]
