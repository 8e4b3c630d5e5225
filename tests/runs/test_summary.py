"""What a run prints of itself."""

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from cnn_papers.parallel import mesh
from cnn_papers.runs import summary


def test_a_run_says_how_many_parameters_a_device_holds_if_a_mesh_splits_them(capsys):
    devices = mesh.make_mesh(data=1, column=2)
    kernel, bias = np.zeros((3, 4), np.float32), np.zeros(5, np.float32)
    halves = NamedSharding(devices, PartitionSpec(None, mesh.COLUMN))
    whole = NamedSharding(devices, PartitionSpec())
    summary.print_split({"kernel": jax.device_put(kernel, whole)})
    assert capsys.readouterr().out == ""
    summary.print_split(
        {"kernel": jax.device_put(kernel, halves), "bias": jax.device_put(bias, whole)}
    )
    assert capsys.readouterr().out == "each device holds 11 of 17 parameters\n"
