"""What keeps a run whole when its surroundings fail: stop signals, a watchdog over ranks, a lock on the run folder."""

from compseg.faults.lock import is_locked, run_lock
from compseg.faults.signals import StopSignals

__all__ = ["StopSignals", "is_locked", "run_lock"]
