"""torchvision's copy of a network, trained on one batch: what `benchmark --versus=torchvision`
measures against.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from cnn_papers.errors import UserError
from cnn_papers.training.optim import OptimizerSettings

# The networks that both have: equal layers, parameters and multiply-adds.
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
    """What torchvision calls the network; UserError where it has none like it, or is not installed."""
    if variant not in TORCHVISION.get(model_name, {}):
        both = "; ".join(
            f"{model} {', '.join(variants)}" for model, variants in TORCHVISION.items()
        )
        raise UserError(
            f"torchvision has no network equal to {model_name} '{variant}'; both have: {both}"
        )
    for package, state in (
        ("torch", "torch is not installed"),
        ("torchvision", "torch is installed, torchvision not"),
    ):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"--versus=torchvision: {state}; pip install torch torchvision")
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
    """A function that takes so many steps of eager torch with torchvision's network `name` and
    waits for the last.

    Args:
      image, label: the batch, uint8 [n, h, w, c] and int32 [n].
      parameters: how many the network must have.
      settings: `lr`, `momentum`, `nesterov` and `weight_decay` of SGD.
      aux_weight: of the losses of the network's auxiliary heads.
      bfloat16: autocast to it; otherwise float32, with TF32 where the device has it, as in JAX.
      platform: where JAX runs, "cpu" or "gpu".
      threads: for the CPU.

    Raises:
      UserError: the network differs from ours, torch cannot use the device that JAX runs on.
    """
    torch, torchvision = _packages()
    device = {"cpu": "cpu", "gpu": "cuda"}.get(platform)
    if device is None or (device == "cuda" and not torch.cuda.is_available()):
        raise UserError(
            f"--versus=torchvision: JAX runs on {platform}, torch {torch.__version__} cannot"
        )
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = torch.backends.cuda.matmul.allow_tf32 = (
        torch.backends.cudnn.allow_tf32
    ) = True
    options = {"init_weights": False} if name == "googlenet" else {}  # its own draws take a minute
    network = getattr(torchvision.models, name)(num_classes=num_classes, **options)
    network = network.to(device, memory_format=torch.channels_last)
    if (count := sum(p.numel() for p in network.parameters())) != parameters:
        raise UserError(
            f"torchvision's {name} has {count:,} parameters, ours {parameters:,}: set no other model fields"
        )
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
                loss = cross_entropy(main, y) + sum(
                    aux_weight * cross_entropy(head, y) for head in aux
                )
            loss.backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return train


def description(name: str, *, bfloat16: bool) -> str:
    """What was measured, in words."""
    torch, torchvision = _packages()
    number = "bfloat16 autocast" if bfloat16 else "float32"
    return f"torchvision {torchvision.__version__} {name}, torch {torch.__version__}, eager, {number}, channels_last, SGD"


def _packages() -> tuple[Any, Any]:
    try:
        return importlib.import_module("torch"), importlib.import_module("torchvision")
    except (
        ImportError,
        OSError,
        RuntimeError,
    ) as error:  # RuntimeError: a torchvision that is built for another torch
        raise UserError(
            f"--versus=torchvision: torch and torchvision do not load together: {error}"
        ) from error
