"""Runs torchvision's copy of a network on one batch, for `benchmark --versus=torchvision`.

It runs as fast as PyTorch's documentation says that it can: channels last, cuDNN's benchmark, TF32
or autocast, a fused optimiser; eagerly, or compiled by `torch.compile`.
"""

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from cnn_papers.benchmarks import torch_cifar
from cnn_papers.errors import UserError
from cnn_papers.training.optim import OptimizerSettings

EAGER, COMPILED = "eager", "compiled"
CIFAR = "cifar_resnet"  # and a depth: a network of `torch_cifar`

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
        **{f"cifar-{depth}": f"{CIFAR}{depth}" for depth in (8, 20, 32, 44, 56, 110)},
    },
    "vgg": {
        **{"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"},
        **{"A-BN": "vgg11_bn", "B-BN": "vgg13_bn", "D-BN": "vgg16_bn", "E-BN": "vgg19_bn"},
    },
}


class Rival(NamedTuple):
    """A network of torch, and how it runs.

    Attributes:
      name: torchvision's, or one of `torch_cifar`.
      how: EAGER or COMPILED.
      num_classes: outputs of its head.
      parameters: their number, which must be ours.
      bfloat16: autocast to it; otherwise float32, with TF32 where the device has it, as in JAX.
      platform: where JAX runs, "cpu" or "gpu".
      threads: for the CPU.
    """

    name: str
    how: str
    num_classes: int
    parameters: int
    bfloat16: bool
    platform: str
    threads: int


def torch_name(model_name: str, variant: str) -> str:
    """Returns torch's name of a network.

    Raises:
      UserError: torchvision has no equal network, is not installed or does not load.
    """
    if variant not in TORCHVISION.get(model_name, {}):
        both = "; ".join(
            f"{model} {', '.join(variants)}" for model, variants in TORCHVISION.items()
        )
        raise UserError(
            f"torchvision has no network equal to {model_name} '{variant}'; both have: {both}"
        )
    name = TORCHVISION[model_name][variant]
    needed = ["torch"] if name.startswith(CIFAR) else ["torch", "torchvision"]
    missing = [package for package in needed if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(
            f"--versus=torchvision: not installed: {', '.join(missing)}; "
            "pip install torch torchvision"
        )
    for package in needed:
        _package(package)
    return name


def check_compiler() -> None:
    """Raises UserError if `torch.compile` cannot compile here, for want of a C++ compiler, say."""
    torch = _package("torch")
    try:
        torch.compile(lambda x: x + 1)(torch.ones(2))
    except Exception as error:  # of many kinds
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"torch.compile cannot compile here: {reason}") from error


def make_trainer(
    rival: Rival,
    image: np.ndarray,
    label: np.ndarray,
    settings: OptimizerSettings,
    aux_weight: float,
) -> Callable[[int], None]:
    """Returns a function that takes a given number of steps of torch and waits for the last.

    Args:
      image, label: the batch, uint8 [n, h, w, c] and int32 [n].
      settings: `lr`, `momentum`, `nesterov` and `weight_decay` of SGD.
      aux_weight: weight of the losses of auxiliary heads.

    Raises:
      UserError: the network differs from ours, or torch cannot use the device that JAX runs on.
    """
    torch, (device, network, x) = _package("torch"), _placed(rival, image)
    rules = {key: getattr(settings, key) for key in ("lr", "momentum", "nesterov", "weight_decay")}
    optimizer = torch.optim.SGD(network.parameters(), **rules, fused=True)
    y = torch.from_numpy(label).long().to(device)
    cross_entropy = torch.nn.functional.cross_entropy

    def loss_of(x: Any, y: Any) -> Any:
        outputs = network(x.float() / 128)
        main, *aux = outputs if isinstance(outputs, tuple) else (outputs,)
        return cross_entropy(main, y) + sum(aux_weight * cross_entropy(head, y) for head in aux)

    if rival.how == COMPILED:
        loss_of = torch.compile(loss_of, dynamic=False)

    def train(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=rival.bfloat16):
                loss = loss_of(x, y)
            loss.backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return train


def make_forward(rival: Rival, image: np.ndarray) -> Callable[[int], None]:
    """Returns a function that computes logits of `image` (uint8 [n, h, w, c]) that many times.

    The network is in evaluation mode. Errors are those of `make_trainer`.
    """
    torch, (device, network, x) = _package("torch"), _placed(rival, image)
    network.eval()

    def logits_of(x: Any) -> Any:
        return network(x.float() / 128)

    if rival.how == COMPILED:
        logits_of = torch.compile(logits_of, dynamic=False)

    def forward(batches: int) -> None:
        with (
            torch.inference_mode(),
            torch.autocast(device, torch.bfloat16, enabled=rival.bfloat16),
        ):
            for _ in range(batches):
                logits_of(x)
        if device == "cuda":
            torch.cuda.synchronize()

    return forward


def peak_memory(run: Callable[[], Any], platform: str) -> int | None:
    """Runs `run`; returns the bytes that torch took at most, beyond those it held before.

    None where it does not count them: on a CPU.
    """
    if platform != "gpu":
        run()
        return None
    cuda = _package("torch").cuda
    before = cuda.memory_allocated()
    cuda.reset_peak_memory_stats()
    run()
    return cuda.max_memory_allocated() - before


def describe(rival: Rival) -> str:
    """Returns what runs, in words."""
    dtype = "bfloat16 autocast" if rival.bfloat16 else "float32"
    name = f"{rival.name} of plain torch"
    if not rival.name.startswith(CIFAR):
        name = f"torchvision {_package('torchvision').__version__} {rival.name}"
    version = _package("torch").__version__
    return f"{name}, torch {version}, {rival.how}, {dtype}, channels_last, fused SGD"


def _placed(rival: Rival, image: np.ndarray) -> tuple[str, Any, Any]:
    """Returns the name of the device, and network and images on it, channels last in memory."""
    torch = _package("torch")
    device = _device(torch, rival.platform, rival.threads)
    network = _network(rival).to(device, memory_format=torch.channels_last)
    return device, network, torch.from_numpy(image).to(device).permute(0, 3, 1, 2)


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


def _network(rival: Rival) -> Any:
    """Returns the network; UserError if it has other than the expected number of parameters."""
    name, torch = rival.name, _package("torch")
    if name.startswith(CIFAR):
        network = torch_cifar.resnet(torch, int(name.removeprefix(CIFAR)), rival.num_classes)
    else:
        # GoogLeNet's own draws of initial weights take a minute.
        options = {"init_weights": False} if name == "googlenet" else {}
        make = getattr(_package("torchvision").models, name)
        network = make(num_classes=rival.num_classes, **options)
    count = sum(parameter.numel() for parameter in network.parameters())
    if count != rival.parameters:
        raise UserError(
            f"torch's {name} has {count:,} parameters, ours {rival.parameters:,}: "
            "set no other model fields"
        )
    return network


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:  # a torchvision built for another torch
        raise UserError(f"--versus=torchvision: {name} does not load: {error}") from error
