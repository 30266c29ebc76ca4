"""Shares of a network: which parts are gathered together."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule

from compseg.training.strategies import shard


@pytest.fixture
def mesh(tmp_path):
    """Of one process: which modules are parts does not depend on how many share them."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 30)
        self.body = nn.Sequential(nn.Linear(30, 30), nn.ReLU())
        self.branches = nn.ModuleList([nn.Linear(30, 30), nn.Linear(30, 30)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(self.stem(x))
        return sum(branch(x) for branch in self.branches)


def test_large_parts_are_gathered_one_by_one_and_compute_the_same(mesh):
    whole = Net()
    shared = copy.deepcopy(whole)
    shard(shared, mesh, unit=900)
    parts = [name for name, part in shared.named_modules() if isinstance(part, FSDPModule)]
    assert parts == ["", "body", "body.0", "branches.0", "branches.1"]
    x = torch.randn(5, 4)
    torch.testing.assert_close(shared(x), whole(x))


def test_what_has_no_parameters_stays_as_it_is(mesh):
    module = nn.ReLU()
    shard(module, mesh)
    assert not isinstance(module, FSDPModule)
