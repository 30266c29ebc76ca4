"""The device to compute on, by name, and the cores of this machine."""

from __future__ import annotations

import os
from textwrap import shorten
from typing import TYPE_CHECKING

from compseg.errors import CompsegError

if TYPE_CHECKING:
    import torch


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """The device of a name.

    Args:
        name: `auto` for the first CUDA device where there is one, else the CPU; or what torch calls a device, such as
            `cpu`, `cuda` or `cuda:1`.

    Raises:
        CompsegError: If this machine has no such device.
    """
    import torch  # a leaf should not cost those torch who never compute

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # a name may be well formed and its device absent
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises the latter
        found = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        why = shorten(str(error).splitlines()[0].rstrip("."), 80, placeholder="...")
        raise CompsegError(
            f"device={name}: expected auto or one of {', '.join(found)}; this machine has no such device ({why}); "
            "give device=auto"
        ) from error
    return device


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
