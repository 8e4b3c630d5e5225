"""Writes the results of `benchmark` as lines of text."""

from typing import Any

from cnn_papers.benchmarks import traffic
from cnn_papers.benchmarks.step_speed import FORWARD, STEP
from cnn_papers.terminal import counted


def as_text(results: dict[str, Any]) -> str:
    """Returns the results with a line for each value or group of values."""
    devices, lines = results["devices"], {"network": _network(results)}
    place = f"{devices['count']} × {devices['kind']}, {devices['cpu_threads']} CPU threads"
    clock = f", {results['clock']}"
    lines["batch"] = f"{results['batch_size']} images on {place}, JAX {results['jax']}{clock}"
    if results["load_average"] > devices["cpu_threads"] / 2:
        load = f"load {results['load_average']:.1f}"
        lines["warning"] = f"others use this machine ({load}): expect no fair comparison"
    if first := results.get("first_step"):
        cold, warm = first["cold"], first["warm"]
        lines["first step"] = (
            f"{cold.seconds:.1f} s after the start, {warm.seconds:.1f} s with a compilation cache"
        )
        lines["its memory"] = (
            f"{cold.peak_bytes / 1e6:,.0f} MB of a process that compiles, "
            f"{warm.peak_bytes / 1e6:,.0f} MB of one that only runs"
        )
    rate = devices.get("matmul_flops_per_second", 0.0)
    if step := results.get(STEP):
        lines |= _passes("train step", step, results["batch_size"], rate)
        memory = step["peak_memory"]
        lines["peak memory"] = f"{memory['bytes'] / 1e6:,.0f} MB {memory['of']}"
    if forward := results.get(FORWARD):
        lines |= _passes("forward", forward, results["batch_size"], rate)
    if saving := results.get("saving"):
        lines |= _saving(saving)
    if windows := results.get("windows"):
        lines |= _windows(windows)
    if encoding := results.get("encoding"):
        lines |= _encoding(encoding)
    for name, speed in results.get("protocols", {}).items():
        other = speed["one_by_one"]
        low, high = other["ratios"]
        faster = (
            f"{other['ratio']:.2f} times as fast as one view at a time ({low:.2f} to {high:.2f})"
        )
        lines[name] = f"{_speed(speed)}, {faster}"
    if pipeline := results.get("input_pipeline"):
        lines |= _input(pipeline)
    width = max(14, *map(len, lines))
    return "\n".join(f"{name:>{width}}  {text}" for name, text in lines.items())


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


def _passes(name: str, speed: dict[str, Any], batch_size: int, rate: float) -> dict[str, str]:
    """Returns the lines of the train step or the forward pass, with those of torch's.

    `rate` is that of matrix products on the same devices, in operations a second.
    """
    milliseconds = 1000 * batch_size / speed["images_per_second"]
    operations = speed["model_flops_per_second"]
    share = f"{operations / rate:.1%} of a large matrix product's"
    text = f"{_speed(speed)}, {milliseconds:,.1f} ms, {operations / 1e9:,.1f} billion model FLOP/s"
    lines = {name: f"{text}, {share}"}
    for how, theirs in speed.get("versus", {}).items():
        low, high = theirs["ratios"]
        ratio = f"ours {theirs['ratio']:.2f} times as fast ({low:.2f} to {high:.2f})"
        if peak := theirs["peak_bytes"]:
            ratio += f", its memory {peak / 1e6:,.0f} MB"
        lines[f"{name}, {how}"] = f"{_speed(theirs)}, {ratio}: {theirs['what']}"
    return lines


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
