"""Trains torchvision's copy of a network on one batch, for `benchmark --versus=torchvision`."""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from cnn_papers.errors import UserError
from cnn_papers.training.optim import OptimizerSettings

# The networks that both have, with equal layers, parameters and multiply-adds: ours and theirs.
TORCHVISION = {
    "alexnet": {"one_weird_trick": "alexnet"},
    "densenet": {
        "121": "densenet121",
        "161": "densenet161",
        "169": "densenet169",
        "201": "densenet201",
    },
    "googlenet": {"torchvision": "googlenet"},
    "resnet": {
        "18": "resnet18",
        "34": "resnet34",
        "50-v1.5": "resnet50",
        "101-v1.5": "resnet101",
        "152-v1.5": "resnet152",
    },
    "vgg": {
        **{"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"},
        **{"A-BN": "vgg11_bn", "B-BN": "vgg13_bn", "D-BN": "vgg16_bn", "E-BN": "vgg19_bn"},
    },
}


def torch_name(model_name: str, variant: str) -> str:
    """Returns torchvision's name of a network.

    Raises:
      UserError: torchvision has no equal network, or is not installed.
    """
    if variant not in TORCHVISION.get(model_name, {}):
        both = "; ".join(
            f"{model} {', '.join(variants)}" for model, variants in TORCHVISION.items()
        )
        raise UserError(
            f"torchvision has no network equal to {model_name} '{variant}'; both have: {both}"
        )
    if importlib.util.find_spec("torch") is None:
        raise UserError(
            "--versus=torchvision: torch is not installed; pip install torch torchvision"
        )
    if importlib.util.find_spec("torchvision") is None:
        raise UserError(
            "--versus=torchvision: torch is installed, torchvision is not; "
            "pip install torch torchvision"
        )
    return TORCHVISION[model_name][variant]


def make_trainer(
    name: str,
    image: np.ndarray,
    label: np.ndarray,
    *,
    num_classes: int,
    parameters: int,
    settings: OptimizerSettings,
    aux_weight: float,
    bfloat16: bool,
    platform: str,
    threads: int,
) -> Callable[[int], None]:
    """Returns a function that takes a given number of steps of eager torch and waits for the last.

    Args:
      name: torchvision's name of the network.
      image, label: the batch, uint8 [n, h, w, c] and int32 [n].
      parameters: number of parameters that the network must have.
      settings: `lr`, `momentum`, `nesterov` and `weight_decay` of SGD.
      aux_weight: weight of the losses of auxiliary heads.
      bfloat16: autocast to it; otherwise float32, with TF32 where the device has it, as in JAX.
      platform: where JAX runs, "cpu" or "gpu".
      threads: for the CPU.

    Raises:
      UserError: the network differs from ours, or torch cannot use the device that JAX runs on.
    """
    torch, _ = _packages()
    device = _device(torch, platform, threads)
    network = _network(name, num_classes, parameters)
    network = network.to(device, memory_format=torch.channels_last)
    rules = {key: getattr(settings, key) for key in ("lr", "momentum", "nesterov", "weight_decay")}
    optimizer = torch.optim.SGD(network.parameters(), **rules)
    x = torch.from_numpy(image).to(device).permute(0, 3, 1, 2)  # channels last in memory
    y = torch.from_numpy(label).long().to(device)
    cross_entropy = torch.nn.functional.cross_entropy

    def train(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
                outputs = network(x.float() / 128)
                main, *aux = outputs if isinstance(outputs, tuple) else (outputs,)
                aux_loss = sum(aux_weight * cross_entropy(head, y) for head in aux)
                loss = cross_entropy(main, y) + aux_loss
            loss.backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return train


def description(name: str, *, bfloat16: bool) -> str:
    """Returns what `make_trainer` trains, in words."""
    torch, torchvision = _packages()
    dtype = "bfloat16 autocast" if bfloat16 else "float32"
    return (
        f"torchvision {torchvision.__version__} {name}, torch {torch.__version__}, "
        f"eager, {dtype}, channels_last, SGD"
    )


def _device(torch: Any, platform: str, threads: int) -> str:
    """Returns torch's name of the device that JAX runs on, and makes torch use it as JAX does."""
    device = {"cpu": "cpu", "gpu": "cuda"}.get(platform)
    if device is None or (device == "cuda" and not torch.cuda.is_available()):
        raise UserError(
            f"--versus=torchvision: JAX runs on {platform}, torch {torch.__version__} cannot"
        )
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = True
    return device


def _network(name: str, num_classes: int, parameters: int) -> Any:
    """Returns torchvision's network `name`; UserError if it has other than `parameters`."""
    _, torchvision = _packages()
    options = {"init_weights": False} if name == "googlenet" else {}  # its own draws take a minute
    network = getattr(torchvision.models, name)(num_classes=num_classes, **options)
    count = sum(parameter.numel() for parameter in network.parameters())
    if count != parameters:
        raise UserError(
            f"torchvision's {name} has {count:,} parameters, ours {parameters:,}: "
            "set no other model fields"
        )
    return network


def _packages() -> tuple[Any, Any]:
    try:
        return importlib.import_module("torch"), importlib.import_module("torchvision")
    except (ImportError, OSError, RuntimeError) as error:  # a torchvision built for another torch
        raise UserError(
            f"--versus=torchvision: torch and torchvision do not load together: {error}"
        ) from error
