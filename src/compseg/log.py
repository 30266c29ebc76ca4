"""What a run says aloud: once, from rank zero, on the console and in `train.log`."""

from __future__ import annotations

import logging
import warnings

from pytorch_lightning.utilities import rank_zero_only

LOG = logging.getLogger("compseg")


@rank_zero_only
def log(message: str) -> None:
    """Log a line."""
    LOG.info(message)


def quiet_libraries() -> None:
    """Leave out what no user can act on.

    Lightning's notices (found devices, tips) and warnings about its own internals.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r".*treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=r".*The number of training batches.*")
    # The batches are: see `BalancedBatches.go_on`.
    warnings.filterwarnings("ignore", message=r".*your dataloader is not resumable.*")
    warnings.filterwarnings("ignore", message=r".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", message=r".*recommended to use `self.log.*sync_dist=True.*")
    warnings.filterwarnings("ignore", message=r".*`broadcast_buffers` is deprecated.*")
