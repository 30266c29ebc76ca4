"""What a run says: once, from rank zero, on the console and in `train.log`."""

from __future__ import annotations

import logging
import os
import sys
import warnings

LOG = logging.getLogger("compseg")


def log(message: str) -> None:
    """Log a line, on rank zero alone."""
    if rank() == 0:
        LOG.info(message)


def rank() -> int:
    """The rank of this process among all that train together.

    Lightning knows it best, because a strategy sets it; but it takes seconds to import, so before it is imported the
    environment answers, as Lightning itself would read it.
    """
    lightning = getattr(sys.modules.get("lightning_utilities.core.rank_zero"), "rank_zero_only", None)
    known: int | None = getattr(lightning, "rank", None)
    if known is not None:
        return known
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
        # As in any run that is resumed.
        r".*Checkpoint directory .* exists and is not empty.*",
        # What is logged is the same on all ranks already.
        r".*recommended to use `self.log.*sync_dist=True.*",
        r".*`broadcast_buffers` is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message=message)
