"""What every test runs under: one thread, no display, no dashboards, and examples that may take their time."""

import os

# Before anything imports torch, matplotlib or wandb. The tests run side by side; threads would get in the way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("WANDB_MODE", "disabled")

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
