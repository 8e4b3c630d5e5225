"""Torch's networks: the same as ours, run as they should be, and compared window by window."""

import sys
import types
from typing import Any

import numpy as np
import pytest
from support.measured import FACTS

from cnn_papers import zoo
from cnn_papers.benchmarks import step_speed, timing, torch_cifar, torchvision, wording, workload
from cnn_papers.benchmarks.step_speed import FORWARD, STEP
from cnn_papers.benchmarks.timing import Speed
from cnn_papers.benchmarks.torchvision import COMPILED, EAGER, Rival
from cnn_papers.errors import UserError
from cnn_papers.training.optim import OptimizerSettings

PUBLISHED = {  # parameters, as torchvision's documentation states them
    "alexnet": 61_100_840,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "densenet121": 7_978_856,
    "densenet161": 28_681_000,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
    "googlenet": 13_004_888,  # with its auxiliary heads, which the documentation leaves out
}


def test_what_is_compared_is_the_same_network():
    ours = {
        theirs: zoo.model_module(model).FACTS[variant].params
        for model, variants in torchvision.TORCHVISION.items()
        for variant, theirs in variants.items()
        if not theirs.startswith(torchvision.CIFAR)
    }
    assert ours == PUBLISHED


@pytest.mark.parametrize("depth", [8, 20, 110])
def test_a_resnet_for_cifar_is_the_same_network(depth):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    network = torch_cifar.resnet(torch, depth, num_classes=10)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == zoo.model_module("resnet").FACTS[f"cifar-{depth}"].params
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_its_shortcuts_keep_every_second_pixel_and_add_channels_of_zeros():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    block = next(
        module
        for module in torch_cifar.resnet(torch, 8, num_classes=10)
        if getattr(module, "stride", 1) == 2 and hasattr(module, "new_channels")
    )
    torch.nn.init.zeros_(block.residual[-1].weight)  # of the last batch normalisation
    x = torch.rand(1, 16, 4, 4)
    expected = torch.zeros(1, 32, 2, 2)
    expected[:, :16] = x[:, :, ::2, ::2]
    assert torch.equal(block(x), expected)


def test_torchvision_that_is_not_there(monkeypatch):
    there = {"torch"}
    monkeypatch.setattr(
        torchvision.importlib.util, "find_spec", lambda name: name if name in there else None
    )
    with pytest.raises(
        UserError, match="not installed: torchvision; pip install torch torchvision"
    ):
        torchvision.torch_name("resnet", "18")
    there.clear()
    with pytest.raises(UserError, match="not installed: torch, torchvision; pip install"):
        torchvision.torch_name("resnet", "18")
    there |= {"torch", "torchvision"}
    monkeypatch.setattr(torchvision, "_package", {"torch": 1, "torchvision": 2}.__getitem__)
    assert torchvision.torch_name("resnet", "50-v1.5") == "resnet50"
    there.remove("torchvision")
    assert torchvision.torch_name("resnet", "cifar-20") == "cifar_resnet20"  # of plain torch


def test_a_torchvision_that_does_not_load_is_said_before_anything_is_measured(
    tmp_path, monkeypatch
):
    pytest.importorskip("torch", reason="torch is not installed")
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('no operator nms')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    with pytest.raises(UserError, match="torchvision does not load: no operator nms"):
        torchvision.torch_name("resnet", "18")


@pytest.fixture
def torch_networks(monkeypatch) -> Any:
    """torch, with a torchvision that has one network, `tiny`; returns the networks made of it.

    Each keeps in `seen` what it was called on.
    """
    torch = pytest.importorskip("torch", reason="torch is not installed")
    networks = []

    class Tiny(torch.nn.Module):
        def __init__(self, num_classes: int):
            super().__init__()
            self.head, self.seen = torch.nn.Linear(3, num_classes), []
            networks.append(self)

        def forward(self, image: Any) -> Any:
            self.seen.append((image.shape, image.is_contiguous(memory_format=torch.channels_last)))
            return self.head(image.mean((2, 3)))

    models = types.SimpleNamespace(tiny=Tiny)
    monkeypatch.setitem(
        sys.modules, "torchvision", types.SimpleNamespace(models=models, __version__="0.0")
    )
    return networks


RIVAL = Rival("tiny", EAGER, 7, 28, bfloat16=False, platform="cpu", threads=2)
IMAGE, LABEL = np.full((4, 6, 5, 3), 128, np.uint8), np.full(4, 2, np.int32)


def torch_trainer(aux_weight: float = 0.5, **changes: Any) -> timing.Contender:
    settings = OptimizerSettings(lr=0.1, lr_batch=4)
    return torchvision.make_trainer(RIVAL._replace(**changes), IMAGE, LABEL, settings, aux_weight)


def test_torch_takes_the_steps(torch_networks):
    import torch

    train = torch_trainer()
    train(3)
    network = torch_networks[0]
    assert network.seen == [((4, 3, 6, 5), True)] * 3 and torch.get_num_threads() == 2
    logits = network.head(torch.ones(3)).detach().numpy()
    train(40)
    after = network.head(torch.ones(3)).detach().numpy()
    assert after[2] - after.mean() > logits[2] - logits.mean() + 1  # the label's
    assert torchvision.describe(RIVAL._replace(bfloat16=True)) == (
        f"torchvision 0.0 tiny, torch {torch.__version__}, "
        "eager, bfloat16 autocast, channels_last, fused SGD"
    )


def test_torch_computes_logits_in_evaluation(torch_networks):
    import torch

    torchvision.make_forward(RIVAL, IMAGE)(3)
    network = torch_networks[0]
    assert network.seen == [((4, 3, 6, 5), True)] * 3
    assert not network.training and network.head.weight.grad is None
    outputs = []
    network.head.register_forward_hook(lambda module, given, result: outputs.append(result))
    torchvision.make_forward(RIVAL._replace(bfloat16=True), IMAGE)
    with torch.no_grad():
        network.head(torch.ones(3))
    assert len(outputs) == 1  # another network was made, which does not run before it is told


def test_torch_computes_in_bfloat16_where_we_do(torch_networks):
    import torch

    dtypes = []
    train = torch_trainer(bfloat16=True)
    torch_networks[0].head.register_forward_hook(
        lambda module, given, result: dtypes.append(result.dtype)
    )
    train(1)
    assert dtypes == [torch.bfloat16]


def test_torch_adds_the_losses_of_auxiliary_heads(torch_networks):
    """Only the second output, an auxiliary one, depends on parameters: they move by its weight."""
    import torch

    moves = []
    for aux_weight in (0.25, 1.0):
        train = torch_trainer(aux_weight=aux_weight)
        head = torch_networks[-1].head
        for parameter in head.parameters():
            torch.nn.init.zeros_(parameter)
        torch_networks[-1].forward = lambda image, head=head: (
            torch.zeros(4, 7),
            head(image.mean((2, 3))),
        )
        train(1)
        moves.append(head.bias.detach().numpy())
    np.testing.assert_allclose(
        moves[1], [0.1 * (label == 2) - 0.1 / 7 for label in range(7)], rtol=1e-5
    )
    np.testing.assert_allclose(moves[0], 0.25 * moves[1], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": 29}, "torch's tiny has 28 parameters, ours 29"),
        ({"platform": "tpu"}, "JAX runs on tpu, torch .* cannot"),
    ],
)
def test_torch_that_cannot_be_compared(torch_networks, changes, message):
    with pytest.raises(UserError, match=message):
        torch_trainer(**changes)


@pytest.mark.parametrize("part", [STEP, FORWARD])
def test_the_ratio_is_of_windows_side_by_side(monkeypatch, part):
    pytest.importorskip("torch", reason="torch is not installed")
    work = workload.from_paper("resnet", "cifar-8", 8, 8, "float32")._replace(devices=1)
    called = []

    def speeds_of(contenders: Any, batch_size: int) -> dict[str, Speed]:
        assert batch_size == 8
        for name, run in contenders.items():
            run(1)
            called.append(name)
        windows = {"ours": [2.0, 4.0, 9.0], EAGER: [4.0, 4.0, 3.0]}
        return {name: Speed(4.0, values) for name, values in windows.items()}

    rival = step_speed.rival(work, "cifar_resnet8", EAGER)
    results = step_speed.measure(work, part, speeds_of, [rival])
    assert called == ["ours", EAGER]
    versus = results["versus"][EAGER]
    assert (versus["ratio"], versus["ratios"]) == (1.0, [0.5, 3.0])
    assert versus["what"].startswith("cifar_resnet8 of plain torch, torch ")
    assert ("peak_memory" in results) == (part == STEP)


def test_rivals_have_a_line_each():
    speed = {"images_per_second": 8.0, "windows": [7.0, 8.0], "model_flops_per_second": 2e9}
    theirs = {**speed, "ratio": 0.5, "ratios": [0.25, 1.0], "peak_bytes": None, "what": "torch"}
    on_gpu = theirs | {"peak_bytes": 3_000_000}
    memory = {"bytes": 5e6, "of": "of the process"}
    step = {**speed, "peak_memory": memory, "versus": {EAGER: theirs, COMPILED: on_gpu}}
    lines = wording.as_text(FACTS | {STEP: step}).splitlines()
    own = "8.0 images/s (7.0 to 8.0 in 2 windows)"
    ratio = "ours 0.50 times as fast (0.25 to 1.00)"
    share = "2.0% of a large matrix product's"
    assert lines[2:] == [
        f"          train step  {own}, 1,000.0 ms, 2.0 billion model FLOP/s, {share}",
        f"   train step, eager  {own}, {ratio}: torch",
        f"train step, compiled  {own}, {ratio}, its memory 3 MB: torch",
        "         peak memory  5 MB of the process",
    ]
