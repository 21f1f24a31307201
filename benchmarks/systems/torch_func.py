"""Fused trials in PyTorch: `torch.func.vmap` over stacked models, as HFTA fuses them."""

import math
import time
from typing import Any

import torch
from torch import Tensor, nn

from systems import torch_models
from systems.system import Epoch
from systems.torch_loop import LAYOUTS, DeviceData, compute_loss, use_fast_settings
from systems.workload import CLASSES, Workload

B1, B2, EPS = 0.9, 0.999, 1e-8


def create(workload: Workload, name: str) -> "TorchFunc":
    """Returns the stacked trials."""
    del name
    use_fast_settings()
    return TorchFunc(workload, DeviceData(workload))


class TorchFunc:
    """Trials that take the same batches; all their parameters lie in one array, a row a trial."""

    def __init__(self, workload: Workload, data: DeviceData):
        self.detail: dict[str, Any] = {"device": data.device, "threads": torch.get_num_threads()}
        self._data = data
        models = [_create_model(workload, trial.seed, data.device) for trial in workload.trials]
        self._template = models[0]
        self._shapes = {name: p.shape for name, p in models[0].named_parameters()}
        norms = [name for name, m in models[0].named_modules() if isinstance(m, nn.BatchNorm2d)]
        self._stays_float32 = {name for name in self._shapes if name.rpartition(".")[0] in norms}
        rows = [torch.cat([p.detach().flatten() for p in m.parameters()]) for m in models]
        self._params = torch.stack(rows).requires_grad_()
        self._buffers = torch.func.stack_module_state(models)[1]
        self._moments = torch.zeros_like(self._params), torch.zeros_like(self._params)
        self._steps = 0
        numbers = torch.tensor([trial[:2] for trial in workload.trials], device=data.device)
        self._learning_rate, self._weight_decay = numbers[:, :1], numbers[:, 1:]
        self._losses = torch.func.vmap(self._loss_of_one, in_dims=(0, 0, None, None), randomness="different")

    def run_epoch(self, epoch: int) -> Epoch:
        """Trains all trials; the losses are on the host when this returns."""
        self._data.synchronize()
        start = time.perf_counter()
        total = torch.zeros(len(self._params), device=self._data.device)
        order = self._data.order(epoch)
        for rows in order:
            images, labels = self._data.batch(rows, LAYOUTS["contiguous"])
            self._params.grad = None
            losses = self._losses(self._named_params(), self._buffers, images, labels)
            losses.sum().backward()
            self._update()
            total += losses.detach()
        means = (total / len(order)).tolist()
        return Epoch(time.perf_counter() - start, means)

    def _named_params(self) -> dict[str, Tensor]:
        """Returns the stacked parameters, cast by hand: `torch.autocast` doesn't reach into `vmap`."""
        parts = self._params.split([math.prod(s) for s in self._shapes.values()], dim=1)
        return {
            name: self._cast(name, part.view(-1, *shape))
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }

    def _cast(self, name: str, values: Tensor) -> Tensor:
        return values if name in self._stays_float32 else values.to(self._data.dtype)

    def _loss_of_one(self, params, buffers, images: Tensor, labels: Tensor) -> Tensor:
        call = lambda x: torch.func.functional_call(self._template, (params, buffers), (x,)).float()  # noqa: E731
        return compute_loss(call, images, labels)  # type: ignore[arg-type]

    @torch.no_grad()
    def _update(self) -> None:
        """Adam with coupled decay, each row at rates of its own."""
        gradient = self._params.grad
        assert gradient is not None
        gradient.add_(self._params * self._weight_decay)
        self._steps += 1
        first, second = self._moments
        first.lerp_(gradient, 1 - B1)
        second.mul_(B2).addcmul_(gradient, gradient, value=1 - B2)
        scale = (second / (1 - B2**self._steps)).sqrt_().add_(EPS)
        self._params -= self._learning_rate / (1 - B1**self._steps) * first / scale


def _create_model(workload: Workload, seed: int, device: str) -> nn.Module:
    torch.manual_seed(seed)
    model = torch_models.create_model(workload.model, workload.image_size, CLASSES)
    return model.to(device).train()
