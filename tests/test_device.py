"""The device of a name."""

from __future__ import annotations

import pytest
import torch

from compseg.device import pick_device
from compseg.errors import CompsegError


@pytest.mark.parametrize(("there", "kind"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_a_gpu_where_there_is_one(monkeypatch, there, kind):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert pick_device("auto").type == kind


def test_a_device_that_is_there_is_taken():
    assert pick_device("cpu") == pick_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "nonsense", "meta"])
def test_a_device_that_is_not_there_is_refused_in_one_line(name):
    with pytest.raises(CompsegError, match=f"device={name}: expected auto or one of cpu.*; give device=auto") as error:
        pick_device(name)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_is_refused_without_a_gpu():
    with pytest.raises(CompsegError, match="device=cuda: expected auto or one of cpu; this machine has no such device"):
        pick_device("cuda")
