"""Dashboards that never keep a run from starting."""

from __future__ import annotations

import netrc
import os
from typing import Any

from pytorch_lightning.loggers import WandbLogger

from compseg.learning.say import say


def wandb_logger(**options: Any) -> WandbLogger:
    """A W&B logger; offline where there is no key, to be sent later with `wandb sync`.

    The mode is chosen before W&B starts: falling back after a failed log-in leaves its library in a bad state.

    Args:
        **options: Of `pytorch_lightning.loggers.WandbLogger`: project, name, group, tags, save_dir.
    """
    offline = os.environ.get("WANDB_MODE", "") == "offline" or not _has_key()
    if offline:
        say(
            f"logger=wandb: offline, for there is no key; "
            f"send it later with: wandb sync {options.get('save_dir', '.')}/wandb/offline-run-*"
        )
    return WandbLogger(offline=offline, log_model=False, **options)


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1]
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
