"""How several devices train together: a copy of the model on each (DDP), or a share of it (FSDP)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FullyShardedDataParallel, OptimStateKeyType, fully_shard

from compseg.private import share_among_all_devices

UNIT = 1_000_000  # parameters that are gathered at once, about


class DDP(DDPStrategy):
    """A copy of the model on every device."""

    def __init__(self, **options: Any) -> None:
        # Buffers (the standardisation) never change while training; broadcasting them would make ranks wait for each
        # other in validation, where they may have different numbers of batches.
        super().__init__(**{"broadcast_buffers": False, **options})


class FSDP(ModelParallelStrategy):
    """A share of the network on every device, for one that a device cannot hold (PyTorch's `fully_shard`).

    Checkpoints are whole files, as with any other strategy. See `CompSegNet.configure_model`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"save_distributed_checkpoint": False, "tensor_parallel_size": 1, **options})

    def setup_environment(self) -> None:
        """Share among all devices of all machines, which are known now."""
        share_among_all_devices(self)
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Hand out shares of a whole checkpoint, which another strategy may have written.

        Lightning's own would take weights that lie channels_last in the file for contiguous ones.
        """
        del weights_only
        assert self.model is not None
        read: dict[str, Any] = torch.load(checkpoint_path, map_location="cpu", mmap=True, weights_only=True)
        checkpoint: dict[str, Any] = apply_to_collection(read, torch.Tensor, torch.Tensor.contiguous)
        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(self.model, checkpoint.pop("state_dict"), options=options)
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            by_name = FullyShardedDataParallel.rekey_optim_state_dict(state, OptimStateKeyType.PARAM_NAME, self.model)
            set_optimizer_state_dict(self.model, optimizer, by_name, options=options)
        return checkpoint


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
        parameter.data = parameter.data.contiguous()  # FSDP takes no other memory format
    if not isinstance(module, nn.ModuleList | nn.ModuleDict):  # these are never called
        fully_shard(module, mesh=mesh)
