"""What only a GPU can show; skipped where there is none."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compseg.cohort import Cohort
from compseg.inference import load_segmenter
from compseg.models.blocks import Conv
from running import run_here, tiny

sys.path.insert(0, str(Path(__file__).parent))
from waiting import Waiting

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
ON_GPU = ("trainer.accelerator=gpu", "data.source.size=32", "data.source.channels=12", "evaluation.split=none")


@pytest.fixture
def waits():
    """Where training has waited."""
    Waiting.found.clear()
    show = warnings.showwarning
    with warnings.catch_warnings():
        yield Waiting.found
    warnings.showwarning = show
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("method", ["compseg", "paper2020"])
@pytest.mark.parametrize("cache", ["device", "ram", "none"])
def test_no_step_has_the_host_wait_for_the_gpu(tmp_path, waits, cache, method):
    options = [f"data.cache={cache}", f"method={method}", "augmentation=flip_rotate90_jitter"]
    options += ["data.workers=1"] if cache == "none" else []
    callback = "+callbacks.waiting._target_=waiting.Waiting"
    arguments = tiny(tmp_path / "cohort.zarr", tmp_path / "run", *ON_GPU, "trainer.compile=null", *options, callback)
    assert run_here("train", *arguments) == 0
    assert not waits, "\n\n".join(dict.fromkeys(waits))


@pytest.mark.parametrize("mode", ["null", "default"])
def test_what_a_gpu_has_learned_serves_a_processor(tmp_path, mode):
    cohort, run = tmp_path / "cohort.zarr", tmp_path / "run"
    assert run_here("train", *tiny(cohort, run, *ON_GPU, f"trainer.compile={mode}")) == 0
    opened = Cohort.open(cohort)
    name = opened.split("test")[0].name
    here, there = (load_segmenter(run, place)(opened.image(name), opened.tissue(name)) for place in ("cpu", "cuda"))
    np.testing.assert_allclose(there, here, atol=1e-3)
    assert np.ptp(here) > 0.05


def test_channels_are_filled_up_by_nothing_that_counts():
    torch.manual_seed(0)
    filled, plain = (conv(10, 4, 3, padding=1).cuda() for conv in (Conv, nn.Conv2d))
    plain.load_state_dict(filled.state_dict())
    x, direction = torch.randn(2, 10, 9, 9, device="cuda"), torch.randn(2, 4, 9, 9, device="cuda")
    results = []
    for net in (filled, plain):
        given = x.clone().requires_grad_()
        with torch.autocast("cuda", torch.bfloat16):
            output = net(given)
        (output.float() * direction).sum().backward()
        results.append([output, given.grad, net.weight.grad, net.bias.grad])
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)
