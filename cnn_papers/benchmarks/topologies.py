"""Devices to compile for without having them: TPUs, GPUs, and fake CPU devices."""

import importlib.util
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from cnn_papers.errors import UserError

# What XLA has to know of a GPU to compile for it: an H100 SXM, by NVIDIA's data sheet.
H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132  fpus_per_core: 128  clock_rate_ghz: 1.98
  threads_per_block_limit: 1024  threads_per_core_limit: 2048  threads_per_warp: 32
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  registers_per_block_limit: 65536  registers_per_core_limit: 65536
  shared_memory_per_block: 49152  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  l2_cache_size: 52428800  device_memory_size: 84929347584  memory_bandwidth: 3352320000000
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 12 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def fake_devices(count: int) -> None:
    """Gives this process at least `count` CPU devices; it must not have used a device yet.

    Raises:
      UserError: it has used one, as in a notebook, and has fewer.
    """
    config: Any = jax.config
    if config.jax_num_cpu_devices >= count:
        return
    try:
        config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        present = len(jax.devices("cpu"))
        if present < count:
            raise UserError(
                f"this needs {count} CPU devices, and JAX has started with {present} in this "
                "process: start another process, or the notebook's kernel anew"
            ) from error


def devices(name: str) -> list[Any]:
    """Returns the devices of a topology, which can only be compiled for.

    It has to be called before this process uses a device.

    Args:
      name: v5e:2x2 (TPUs by generation and arrangement), h100:8 or h100:2x8 (GPUs of one host, or
        hosts × GPUs of each), or cpu:4 (fake CPU devices).

    Raises:
      UserError: the name is none of these, or a package is not installed.
    """
    match = re.fullmatch(
        r"(?P<kind>v\d\w*|h100|cpu):(?P<sides>[1-9]\d{0,3}(x[1-9]\d{0,3}){0,2})", name
    )
    if not match or len(match["sides"].split("x")) > {"cpu": 1, "h100": 2}.get(match["kind"], 3):
        raise UserError(
            f"--topology={name}: write v5e:2x2 (TPUs), h100:8 or h100:2x8 (hosts × GPUs), or cpu:4"
        )
    jax.config.update("jax_platforms", "cpu")
    if match["kind"] == "cpu":
        count = int(match["sides"])
        fake_devices(count)
        return jax.devices("cpu")[:count]
    return _gpus(name, match["sides"]) if match["kind"] == "h100" else _tpus(name)


def _tpus(name: str) -> list[Any]:
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(f'--topology={name} needs libtpu, though no TPU: pip install "jax[tpu]"')
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no TPU here to ask about itself
    try:
        return list(topologies.get_topology_desc(name, "tpu").devices)
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"--topology={name}: {str(error).splitlines()[0]}") from error


def _gpus(name: str, sides: str) -> list[Any]:
    if not any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)):
        raise UserError(
            f'--topology={name} needs JAX for CUDA, though no GPU: pip install "jax[cuda13]"'
        )
    shape = f"1x{sides}" if "x" in sides else f"1x1x{sides}"
    try:
        gpus = topologies.get_topology_desc("", "cuda", topology=shape, target_config=H100)
    except RuntimeError as error:
        raise UserError(f"--topology={name}: {str(error).splitlines()[0]}") from error
    return list(gpus.devices)
