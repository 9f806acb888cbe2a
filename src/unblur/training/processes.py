"""One process or several: what `torchrun` started, on the accelerator that is there. Lightning's Fabric does the work.

    torchrun --nproc-per-node 2 -m unblur train experiments/sharp/wiener_nafnet_everyday.yaml

On a cluster under SLURM the same command runs once on each machine: `srun torchrun --nnodes $SLURM_NNODES
--nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint $HEAD:29500 -m unblur train ...`. The backend is nccl on GPUs and
gloo on processors.
"""

import os
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy
from lightning.fabric.strategies.model_parallel import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from unblur import models
from unblur.errors import TrainingError
from unblur.experiment import Experiment


def start(experiment: Experiment) -> Fabric:
    """Return the process's connection to the others, if any, and to its device."""
    if experiment.precision == "fp16" and not torch.cuda.is_available():
        raise TrainingError("precision fp16 needs a GPU with CUDA; choose auto, which takes bf16 where that is fast.")
    if not TorchElasticEnvironment.detect():
        fabric = Fabric(accelerator="auto", devices=1, plugins=[LightningEnvironment()])
        fabric.launch()
        return fabric
    here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    unused = bool(models.find(experiment.model.name).unused)
    fabric = Fabric(
        accelerator="auto",
        devices=here,
        num_nodes=everywhere // here,
        strategy=_sharded(everywhere) if experiment.strategy == "fsdp" else DDPStrategy(find_unused_parameters=unused),
        plugins=[TorchElasticEnvironment()],
    )
    fabric.launch()
    return fabric


def _sharded(processes: int) -> ModelParallelStrategy:
    """Return the strategy in which each process holds its share of the weights (PyTorch's fully_shard, FSDP 2)."""

    def parallelize(network: nn.Module, mesh: DeviceMesh) -> nn.Module:
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # it shards no other
        fully_shard(network, mesh=mesh["data_parallel"])
        return network

    return ModelParallelStrategy(parallelize, data_parallel_size=processes, tensor_parallel_size=1)


def whole(state: Any) -> Any:
    """Return a state with the shares of all processes put together, where it is shared; all of them must call it."""
    if isinstance(state, DTensor):
        return state.full_tensor()
    if isinstance(state, dict):
        return {key: whole(value) for key, value in state.items()}
    return [whole(value) for value in state] if isinstance(state, list) else state


def share_of(value: Any, like: Tensor) -> Any:
    """Return this process's share of a tensor, where `like` is shared and of its shape; otherwise the value itself."""
    if isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape:
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value


def mean_over_processes(values: dict[str, Tensor], fabric: Fabric) -> dict[str, Tensor]:
    """Return the means of scalars over all processes, which are thus the same in all of them."""
    if fabric.world_size == 1:
        return values
    together = fabric.all_reduce(torch.stack([value.float() for value in values.values()]), reduce_op="mean")
    assert isinstance(together, Tensor)
    return dict(zip(values, together.unbind(), strict=True))


def any_process(flag: bool, fabric: Fabric) -> bool:
    """Return whether the flag is set in any process."""
    if fabric.world_size == 1:
        return flag
    return bool(fabric.all_reduce(torch.tensor(float(flag), device=fabric.device), reduce_op="sum"))
