"""`python -m compseg.compare cohorts=[...] methods=[...] seeds=5`: which method does best, and how surely."""

from __future__ import annotations

import signal
import sys

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from compseg.api import make_callable
from compseg.config import verb


@verb("compare")
def main(cfg: DictConfig) -> None:
    """Compare methods x models x cohorts x seeds: train all, several at once; a table, a picture, intervals.

    python -m compseg.compare cohorts=[phantom] methods=[compseg,supervised] seeds=5 out=outputs/first
    """
    from compseg.studies.comparison import compare

    # Told to end (`kill`, a queue's time limit), it ends its jobs too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    GlobalHydra.instance().clear()  # this verb is composed; what it composes from here on are training runs
    print(compare(cfg))


make_callable(__name__)
if __name__ == "__main__":
    main()
