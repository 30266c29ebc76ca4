"""A network in shares, one on every device."""

from __future__ import annotations

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

UNIT = 1_000_000  # parameters that are gathered at once, about


def shard(module: nn.Module, mesh: DeviceMesh, unit: int = UNIT) -> None:
    """Leave each device of the mesh a share of the parameters; they are gathered part by part when a part is called.

    Args:
        module: Changed in place; one without parameters stays as it is.
        mesh: Of one dimension.
        unit: The least number of parameters of a part; smaller ones go with what holds them.
    """
    if not any(True for _ in module.parameters()):
        return
    for child in module.children():
        if sum(parameter.numel() for parameter in child.parameters()) >= unit:
            shard(child, mesh, unit)
    for parameter in module.parameters():
        parameter.data = parameter.data.contiguous()  # whatever trainer.memory_format: others it does not take
    if not isinstance(module, nn.ModuleList | nn.ModuleDict):  # these are never called
        fully_shard(module, mesh=mesh)
