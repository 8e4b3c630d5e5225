"""What `benchmark` measured, as lines of text."""

from typing import Any

from cnn_papers.benchmarks import traffic


def as_text(results: dict[str, Any]) -> str:
    """The report, a line for each figure."""
    devices, lines = results["devices"], {"network": _network(results)}
    place = f"{devices['count']} × {devices['kind']}, {devices['cpu_threads']} CPU threads"
    lines["batch"] = f"{results['batch_size']} images on {place}, JAX {results['jax']}"
    if results["load_average"] > devices["cpu_threads"] / 2:
        lines["warning"] = (
            f"others use this machine (load {results['load_average']:.1f}): expect no fair comparison"
        )
    if first := results.get("first_step_seconds"):
        lines["first step"] = (
            f"{first['cold']:.1f} s after the start, {first['warm']:.1f} s with a compilation cache"
        )
    if step := results.get("train_step"):
        milliseconds = 1000 * results["batch_size"] / step["images_per_second"]
        lines["train step"] = f"{_speed(step)}, {milliseconds:,.1f} ms a step"
        lines["model FLOP/s"] = f"{step['model_flops_per_second'] / 1e9:,.1f} billion"
        lines["peak memory"] = (
            f"{results['peak_memory']['bytes'] / 1e6:,.0f} MB {results['peak_memory']['of']}"
        )
    if theirs := results.get("torchvision"):
        lines["torchvision"] = f"{_speed(theirs)}, {theirs['what']}"
        lines["ratio"] = f"{theirs['ratio']:.2f} (ours / torchvision)"
    if saving := results.get("saving"):
        lines |= _saving(saving)
    if pipeline := results.get("input_pipeline"):
        missing = pipeline.get("not_measured")
        lines["input pipeline"] = (
            f"not measured: {missing}" if missing else f"{_speed(pipeline)}, {pipeline['from']}"
        )
        others = {"streamed": pipeline.get("streamed"), **pipeline.get("versus", {})}
        for name, other in others.items() if not missing else ():
            if other:
                ours = "this split" if name == "streamed" else "our streamed input"
                lines[name] = (
                    f"{_speed(other)}, {ours} {other['ratio']:.2f} times as fast: {other.get('what', 'disk')}"
                )
        if memory := pipeline.get("memory"):
            early, late = (memory[key] / 1e6 for key in ("bytes_after_a_tenth", "bytes_at_the_end"))
            lines["memory"] = (
                f"{late:,.0f} MB after {memory['batches']:,} batches, {early:,.0f} MB after a tenth of them"
            )
    return "\n".join(f"{name:>14}  {text}" for name, text in lines.items())


def _speed(speed: dict[str, Any]) -> str:
    low, high = min(speed["windows"]), max(speed["windows"])
    return f"{speed['images_per_second']:,.1f} images/s ({low:,.1f} to {high:,.1f} in {len(speed['windows'])} windows)"


def of_meshes(results: dict[str, Any]) -> str:
    """The report over meshes: a table and lines for each."""
    batch = f"{results['batch_size']} images, {results['cpu_threads']} CPU threads, JAX {results['jax']}"
    parts = [f"{_network(results)}\n{batch}"]
    for found in results["meshes"]:
        text = f"{found['mesh']} on {found['devices']}\n{traffic.as_text(found)}"
        if step := found.get("step"):
            milliseconds = 1000 * results["batch_size"] / step["images_per_second"]
            text += f"\nstep    {milliseconds:,.1f} ms, {_speed(step)}"
        parts.append(text)
    return "\n\n".join(parts)


def _network(results: dict[str, Any]) -> str:
    network = results["network"]
    size = "×".join(map(str, network["input"]))
    return f"{network['model']} '{network['variant']}' at {size}, {network['dtype']}"


def _saving(saving: dict[str, Any]) -> dict[str, str]:
    seconds = saving["seconds"]
    blocks = f"blocks {1000 * seconds['blocked']:,.1f} ms, {saving['blocked_share']:.1%} of a step"
    slower = f"a step takes {seconds['step_meanwhile'] / seconds['step']:.2f} times as long"
    size, every = f"{saving['bytes'] / 1e6:,.1f} MB", saving["every_steps"]
    return {
        "saving": f"{blocks} of {1000 * seconds['step']:,.1f} ms",
        "meanwhile": f"{size} in {seconds['written']:.1f} s in the background, where {slower}",
        "digests": f"{1000 * seconds['digests']:,.1f} ms a save; the lock {1000 * seconds['lock']:,.1f} ms a run",
        "added": f"at most {saving['added_share']:.2%} of a run that saves every {every} steps, by digests and lock",
    }
