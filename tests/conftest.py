"""What every test runs under: one thread, no display, no dashboards, and examples that may take their time."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

# Before anything imports torch, matplotlib or wandb. The tests run side by side; threads would get in the way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("WANDB_MODE", "disabled")

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
from running import succeed, tiny

if TYPE_CHECKING:
    from compseg.inference import Segmenter

# A script's background job ignores interrupts, and so would all that is started here.
signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Logging as it was before a test: Hydra gives the root logger handlers that write to a test's own console."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    """A small one of three channels that was never trained; a module of tests that needs another has its own."""
    import torch

    from compseg.evaluation.thresholds import fixed
    from compseg.inference import Segmenter
    from compseg.models import SpectralSpatial
    from compseg.preprocessing import Preprocess
    from compseg.samples import Channels

    torch.manual_seed(0)
    net = SpectralSpatial(3, width=8, norm="none")
    torch.nn.init.normal_(net.output.weight)
    return Segmenter(net, Preprocess(3), {}, {}, Channels(3), "all", "float32", fixed(0.5))


class Trained(NamedTuple):
    """A finished tiny run."""

    cohort: Path
    run: Path
    printed: str


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A tiny cohort and a run trained on it, as the command line leaves them; tests read it and change nothing."""
    root = tmp_path_factory.mktemp("trained")
    cohort, run = root / "cohort.zarr", root / "run"
    printed = succeed("train", *tiny(cohort, run))
    return Trained(cohort, run, printed)
