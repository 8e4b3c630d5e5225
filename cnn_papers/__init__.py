"""The convolutional-network canon, AlexNet (2012) to DenseNet (2017), reproduced in JAX.

`import cnn_papers` offers the names of `__all__` to Python and notebooks, and imports the module of
one, and with it JAX, only when the name is first used: docs/how-to/python.md.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnn_papers.errors import UserError
    from cnn_papers.evaluate import evaluate_runs, evaluate_weights
    from cnn_papers.interface import (
        Network,
        create_model,
        list_models,
        load_network,
        load_weights,
        read_config,
    )
    from cnn_papers.train import train_and_evaluate

__all__ = [
    "Network",
    "UserError",
    "create_model",
    "evaluate_runs",
    "evaluate_weights",
    "list_models",
    "load_network",
    "load_weights",
    "read_config",
    "train_and_evaluate",
]

# The modules of those that are not in `interface`.
_MODULES = {
    "UserError": "errors",
    "evaluate_runs": "evaluate",
    "evaluate_weights": "evaluate",
    "train_and_evaluate": "train",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'cnn_papers' has no attribute '{name}'")
    module = importlib.import_module(f"cnn_papers.{_MODULES.get(name, 'interface')}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
