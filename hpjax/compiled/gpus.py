"""GPUs by their data sheets: XLA compiles for one from that alone, where its plugin is installed."""

from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import topologies

from hpjax.ops.target import Target

_CUDA, _CUDNN = 13, (9, 10)  # what jax's plugin brings with it


@dataclass(frozen=True)
class Gpu:
    """A GPU's data sheet; rates are the vendor's, which no program reaches."""

    kind: str
    capability: tuple[int, int]
    processors: int
    fpus_per_processor: int
    memory_bytes: int
    bytes_per_second: float
    l2_bytes: int
    shared_bytes: int  # of a processor
    clock_ghz: float
    bfloat16_flops: float  # of dense products, a second
    tf32_flops: float

    @property
    def target(self) -> Target:
        """What the choice of lowerings depends on."""
        return Target("gpu", self.kind)

    def flops(self, dtype: str) -> float:
        """Returns the rate of products of `dtype` operands."""
        return self.bfloat16_flops if dtype in ("bfloat16", "float16", "bf16", "f16") else self.tf32_flops


GPUS = {
    "a100": Gpu(
        "NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 85_520_809_984, 2.039e12, 40 << 20, 167_936, 1.41, 312e12,
        156e12,
    ),
    "h100": Gpu(
        "NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 85_520_809_984, 3.35e12, 50 << 20, 233_472, 1.98, 989e12,
        494e12,
    ),
    "h200": Gpu(
        "NVIDIA H200", (9, 0), 132, 128, 151_397_597_184, 4.8e12, 50 << 20, 233_472, 1.98, 989e12, 494e12,
    ),
}  # fmt: skip


def create_device(gpu: Gpu) -> Any:
    """Returns a device that programs are compiled for, and that runs none; raises as `create_devices`."""
    return create_devices(gpu, 1)[0]


def create_devices(gpu: Gpu, count: int) -> list[Any]:
    """Returns so many devices of one host that programs are compiled for, and that run none.

    Raises:
      NotImplementedError: XLA's plugin for CUDA isn't installed, or is for another jaxlib.
    """
    major, minor = gpu.capability
    feature = " feature_extension: ACCELERATED_FEATURES" if major >= 9 else ""
    info = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 48 << 10,
        "shared_memory_per_core": gpu.shared_bytes,
        "threads_per_core_limit": 2048,
        "core_count": gpu.processors,
        "fpus_per_core": gpu.fpus_per_processor,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "memory_bandwidth": int(gpu.bytes_per_second),
        "l2_cache_size": gpu.l2_bytes,
        "clock_rate_ghz": gpu.clock_ghz,
        "device_memory_size": gpu.memory_bytes,
        "shared_memory_per_block_optin": gpu.shared_bytes - 1024,
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
    }
    fields = " ".join(f"{name}: {value}" for name, value in info.items())
    minor_field = f" minor: {minor}" if minor else ""
    text = (
        f"gpu_device_info {{ {fields} cuda_compute_capability {{ major: {major}{minor_field}{feature} }} }}"
        f' platform_name: "CUDA" dnn_version_info {{ major: {_CUDNN[0]} minor: {_CUDNN[1]} }}'
        f' runtime_version {{ major: {_CUDA} }} device_description_str: "{gpu.kind}"'
    )
    topology = topologies.get_topology_desc(platform="cuda", target_config=text, topology=f"1x1x{count}")
    return topology.devices


def place_shapes(tree: Any, device: Any) -> Any:
    """Returns the shapes and dtypes of a tree's leaves, as if they lay on `device`."""
    sharding = jax.sharding.SingleDeviceSharding(device)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
