"""What `benchmark` knows before it measures, for tests of its text."""

FACTS = {
    "network": {"model": "resnet", "variant": "50", "input": (8, 8, 3), "dtype": "float32"},
    "batch_size": 8,
    "devices": {"count": 1, "kind": "cpu", "cpu_threads": 2, "matmul_flops_per_second": 1e11},
    "jax": "0.10.2",
    "load_average": 0.4,
    "clock": "wall clock",
}
