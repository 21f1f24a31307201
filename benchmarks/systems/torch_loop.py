"""PyTorch as it is mostly used: one model after the other, eager or compiled, with its fastest settings."""

import shutil
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from systems import torch_models
from systems.system import Epoch, Unavailable
from systems.workload import CLASSES, Trial, Workload

LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
TRIED_STEPS = 3


def create(workload: Workload, name: str) -> "TorchLoop":
    """Returns the trials as models of their own; on a CPU in the faster one of two memory layouts."""
    use_fast_settings()
    data = DeviceData(workload)
    if name == "torch_compile":
        _require_compiler()
    loss_of = compile_loss(data.device) if name == "torch_compile" else compute_loss
    layouts = ["channels_last"] if data.device == "cuda" else list(LAYOUTS)
    seconds = {layout: _try_layout(workload, data, layout) for layout in layouts if len(layouts) > 1}
    layout = min(seconds, key=seconds.__getitem__) if seconds else layouts[0]
    loop = TorchLoop(workload, data, layout, loss_of)
    loop.detail["tried_seconds"] = seconds
    return loop


def use_fast_settings() -> None:
    """Lets cuDNN search, and products use the tensor cores, as XLA does by default."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = True


class DeviceData:
    """The examples, on the device as bytes, and gathered there."""

    def __init__(self, workload: Workload):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        images, labels = workload.load_examples()
        self.images = torch.from_numpy(images).to(self.device)  # features last
        self.labels = torch.from_numpy(labels).long().to(self.device)
        self.dtype = getattr(torch, workload.precision)
        self.batch_size = workload.batch_size

    def order(self, epoch: int) -> Tensor:
        """Returns the rows of each step of an epoch."""
        draws = torch.Generator().manual_seed(epoch)
        return torch.randperm(len(self.labels), generator=draws).view(-1, self.batch_size).to(self.device)

    def batch(self, rows: Tensor, memory_format: torch.memory_format) -> tuple[Tensor, Tensor]:
        """Returns images in [0, 1] and their labels."""
        scaled = self.images[rows].permute(0, 3, 1, 2).to(self.dtype).mul_(1 / 255)
        return scaled.contiguous(memory_format=memory_format), self.labels[rows]

    def synchronize(self) -> None:
        """Waits for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def autocast(self) -> torch.autocast:
        """Returns the context that computes in the workload's precision."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.dtype == torch.bfloat16)


class TorchLoop:
    """Models that are trained for an epoch one after the other."""

    def __init__(self, workload: Workload, data: DeviceData, layout: str, loss_of: Callable[..., Tensor]):
        self.detail: dict[str, Any] = {
            "device": data.device,
            "layout": layout,
            "threads": torch.get_num_threads(),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
        }
        self._data, self._format, self._loss_of = data, LAYOUTS[layout], loss_of
        self._models = [self._create_model(workload, trial) for trial in workload.trials]
        self._optimizers = [
            torch.optim.Adam(
                model.parameters(), lr=trial.learning_rate, weight_decay=trial.weight_decay, fused=True
            )
            for model, trial in zip(self._models, workload.trials, strict=True)
        ]

    def run_epoch(self, epoch: int) -> Epoch:
        """Trains all models; the losses are on the host when this returns."""
        self._data.synchronize()
        start = time.perf_counter()
        order = self._data.order(epoch)
        totals = [self._train(lane, order) for lane in range(len(self._models))]
        losses = torch.stack(totals).tolist()
        return Epoch(time.perf_counter() - start, losses)

    def _train(self, lane: int, order: Tensor) -> Tensor:
        model, optimizer = self._models[lane], self._optimizers[lane]
        total = torch.zeros((), device=self._data.device)
        for rows in order:
            images, labels = self._data.batch(rows, self._format)
            optimizer.zero_grad(set_to_none=True)
            with self._data.autocast():
                loss = self._loss_of(model, images, labels)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return total / len(order)

    def _create_model(self, workload: Workload, trial: Trial) -> nn.Module:
        torch.manual_seed(trial.seed)
        model = torch_models.create_model(workload.model, workload.image_size, CLASSES)
        model = model.to(self._data.device).to(memory_format=self._format)  # type: ignore[call-overload]
        return model.train()


def compute_loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Returns the batch's mean cross-entropy."""
    return nn.functional.cross_entropy(model(images), labels)


def compile_loss(device: str) -> Callable[..., Tensor]:
    """Returns `compute_loss` compiled; on a GPU each model's kernels are launched as one CUDA graph."""
    if device != "cuda":
        return torch.compile(compute_loss)
    compiled = torch.compile(compute_loss, mode="reduce-overhead")

    def compute(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        # What the step before left in the graph's memory was read: it may be written again.
        torch.compiler.cudagraph_mark_step_begin()
        return compiled(model, images, labels)

    return compute


def _try_layout(workload: Workload, data: DeviceData, layout: str) -> float:
    """Returns the seconds of a few steps of one model in a memory layout, after as many to warm up."""
    loop = TorchLoop(workload.part(0, workload.lanes), data, layout, compute_loss)
    order = data.order(0)[:TRIED_STEPS]
    loop._train(0, order)
    start = time.perf_counter()
    loop._train(0, order)
    return time.perf_counter() - start


def _require_compiler() -> None:
    if torch.cuda.is_available():
        return
    if not any(map(shutil.which, ("g++", "clang++"))):
        raise Unavailable("torch.compile needs a C++ compiler, and there is none")
