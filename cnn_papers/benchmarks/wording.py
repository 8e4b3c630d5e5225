"""Writes the results of `benchmark` as lines of text."""

from typing import Any

from cnn_papers.benchmarks import traffic
from cnn_papers.terminal import counted


def as_text(results: dict[str, Any]) -> str:
    """Returns the results with a line for each value or group of values."""
    devices, lines = results["devices"], {"network": _network(results)}
    place = f"{devices['count']} × {devices['kind']}, {devices['cpu_threads']} CPU threads"
    lines["batch"] = f"{results['batch_size']} images on {place}, JAX {results['jax']}"
    if results["load_average"] > devices["cpu_threads"] / 2:
        load = f"load {results['load_average']:.1f}"
        lines["warning"] = f"others use this machine ({load}): expect no fair comparison"
    if first := results.get("first_step_seconds"):
        cold, warm = f"{first['cold']:.1f} s", f"{first['warm']:.1f} s"
        lines["first step"] = f"{cold} after the start, {warm} with a compilation cache"
    if step := results.get("train_step"):
        milliseconds = 1000 * results["batch_size"] / step["images_per_second"]
        lines["train step"] = f"{_speed(step)}, {milliseconds:,.1f} ms a step"
        lines["model FLOP/s"] = f"{step['model_flops_per_second'] / 1e9:,.1f} billion"
        memory = results["peak_memory"]
        lines["peak memory"] = f"{memory['bytes'] / 1e6:,.0f} MB {memory['of']}"
    if theirs := results.get("torchvision"):
        lines["torchvision"] = f"{_speed(theirs)}, {theirs['what']}"
        lines["ratio"] = f"{theirs['ratio']:.2f} (ours / torchvision)"
    if saving := results.get("saving"):
        lines |= _saving(saving)
    if windows := results.get("windows"):
        lines |= _windows(windows)
    if encoding := results.get("encoding"):
        lines |= _encoding(encoding)
    if pipeline := results.get("input_pipeline"):
        lines |= _input(pipeline)
    return "\n".join(f"{name:>14}  {text}" for name, text in lines.items())


def meshes_as_text(results: dict[str, Any]) -> str:
    """Returns the results over meshes: for each mesh a table and the lines below it."""
    machine = f"{results['cpu_threads']} CPU threads, JAX {results['jax']}"
    parts = [f"{_network(results)}\n{results['batch_size']} images, {machine}"]
    for report in results["meshes"]:
        text = f"{report['mesh']} on {report['devices']}\n{traffic.as_text(report)}"
        if step := report.get("step"):
            milliseconds = 1000 * results["batch_size"] / step["images_per_second"]
            text += f"\nstep    {milliseconds:,.1f} ms, {_speed(step)}"
        parts.append(text)
    return "\n\n".join(parts)


def _network(results: dict[str, Any]) -> str:
    network = results["network"]
    size = "×".join(map(str, network["input"]))
    return f"{network['model']} '{network['variant']}' at {size}, {network['dtype']}"


def _speed(speed: dict[str, Any]) -> str:
    windows = speed["windows"]
    spread = f"{min(windows):,.1f} to {max(windows):,.1f} in {len(windows)} windows"
    return f"{speed['images_per_second']:,.1f} images/s ({spread})"


def _saving(saving: dict[str, Any]) -> dict[str, str]:
    seconds, every = saving["seconds"], saving["every_steps"]
    milliseconds = {name: f"{1000 * value:,.1f} ms" for name, value in seconds.items()}
    blocks = f"blocks {milliseconds['blocked']}, {saving['blocked_share']:.1%} of a step"
    written = f"{saving['bytes'] / 1e6:,.1f} MB in {seconds['written']:.1f} s"
    slower = f"a step takes {seconds['step_meanwhile'] / seconds['step']:.2f} times as long"
    added = f"at most {saving['added_share']:.2%} of a run that saves every {every} steps"
    return {
        "saving": f"{blocks} of {milliseconds['step']}",
        "meanwhile": f"{written} in the background, where {slower}",
        "digests": f"{milliseconds['digests']} a save; the lock {milliseconds['lock']} a run",
        "added": f"{added}, by digests and lock",
    }


def _windows(windows: dict[str, Any]) -> dict[str, str]:
    height, width = windows["image"]
    lines = {"windows": f"of a {height}×{width} image; seconds of R-CNN / SPP-net = ratio"}
    for row in windows["rows"]:
        count, scales = row["windows"], len(row["scales"])
        name = f"{count:,}, {counted(scales, 'scale')}"
        parts = [
            f"{part} {row['rcnn'][part]:.3g} / {row['spp'][part]:.3g} = {ratio:,.1f}"
            for part, ratio in row["ratios"].items()
        ]
        paper = ", ".join(f"{part} {ratio}" for part, ratio in row["paper"].items())
        lines[name] = f"{'; '.join(parts)} (paper: {paper})"
    return {**lines, "paper": windows["measured_on"]}


def _encoding(encoding: dict[str, Any]) -> dict[str, str]:
    height, width = encoding["image"]
    what = {
        "descriptors": f"{encoding['descriptors_of_image']:,} of a {height}×{width} image",
        "encoding": f"of these by {encoding['words']:,} words, {encoding['values']:,} values",
        "fit": f"of components and words, {encoding['sample']:,} descriptors",
        "svms": f"of {encoding['classes']} classes and {encoding['images']:,} images",
    }
    return {
        name: f"{encoding[name]['cpu']:.3g} s of CPU time ({encoding[name]['clock']:.3g} s by the "
        f"clock): {text}"
        for name, text in what.items()
    }


def _input(pipeline: dict[str, Any]) -> dict[str, str]:
    if reason := pipeline.get("not_measured"):
        return {"input pipeline": f"not measured: {reason}"}
    lines = {"input pipeline": f"{_speed(pipeline)}, {pipeline['from']}"}
    if streamed := pipeline.get("streamed"):
        faster = f"this split {streamed['ratio']:.2f} times as fast"
        lines["streamed"] = f"{_speed(streamed)}, {faster}: disk"
    for name, other in pipeline.get("versus", {}).items():
        faster = f"our streamed input {other['ratio']:.2f} times as fast"
        lines[name] = f"{_speed(other)}, {faster}: {other['what']}"
    if memory := pipeline.get("memory"):
        early, late = (memory[key] / 1e6 for key in ("bytes_after_a_tenth", "bytes_at_the_end"))
        lines["memory"] = (
            f"{late:,.0f} MB after {memory['batches']:,} batches, "
            f"{early:,.0f} MB after a tenth of them"
        )
    return lines
