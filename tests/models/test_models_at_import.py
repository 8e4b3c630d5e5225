"""Importing the models builds no network: their facts and variants are literals."""

import subprocess
import sys

from cnn_papers import zoo

IMPORT = """
import importlib
import sys

import flax.linen as nn

built = []
init = nn.Module.__post_init__


def recorded(module):
    built.append(type(module).__name__)
    init(module)


nn.Module.__post_init__ = recorded
for name in sys.argv[1:]:
    module = importlib.import_module("cnn_papers.models." + name)
    assert not built, f"importing {name} builds {built}"
module.Model()
assert built, "building a network goes unnoticed"
"""


def test_importing_the_models_builds_no_network():
    run = subprocess.run(
        [sys.executable, "-c", IMPORT, *zoo.model_names()], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
