"""The network as a table like the papers print: python -m cnn_papers.describe
--config=configs/googlenet.py.

With --mesh=data:4,column:2 the train step over that mesh, which need not be there: which layers
communicate, how many bytes a step against the least possible, and what each device holds. With
--topology=v5e:2x2 it is compiled for such TPUs, with h100:8 for GPUs. With --zoo instead of a
config, every variant of every network as a table in Markdown; docs/zoo.md is its output.
"""

import importlib
import importlib.util
import json
from typing import Any

from absl import flags

from cnn_papers import doors, terminal
from cnn_papers.counting import Network

HEADER = ("layer", "output", "parameters", "multiply-adds")


def main(argv: list[str]) -> None:
    """Prints the table of the network that the flags name, traced for its input without allocating
    anything.
    """
    from cnn_papers import counting, zoo
    from cnn_papers.errors import UserError
    from cnn_papers.runs import inputs

    if len(argv) > 1:
        raise UserError(
            f"unexpected argument '{argv[1]}'; overrides are written --config.key=value"
        )
    if flags.FLAGS.format != "text" and (
        flags.FLAGS.zoo or flags.FLAGS.mesh or flags.FLAGS.topology
    ):
        raise UserError(
            "--format is for the table of one network: --zoo is Markdown, --mesh and --topology text"
        )
    if flags.FLAGS.zoo:
        print(zoo_table())
        return
    config = doors.config_value()
    model = zoo.build_model(config.model_name, **config.model)
    size = flags.FLAGS.input
    if size and (len(size) != 3 or not all(side.isdecimal() and int(side) for side in size)):
        raise UserError(
            f"--input={','.join(size)}: it takes height,width,channels, such as 224,224,3"
        )
    if flags.FLAGS.mesh or flags.FLAGS.topology:
        print(_step(config, tuple(map(int, size))))
        return
    size = tuple(map(int, size)) or inputs.configured_input(config)
    print(FORMATS[flags.FLAGS.format](counting.count(model, size)))


def as_text(network: Network) -> str:
    """Aligned columns."""
    return terminal.aligned([HEADER, *_cells(network)])


def _step(config: Any, size: tuple[int, ...]) -> str:
    """The train step over `--mesh`, on fake devices or those of `--topology`."""
    from cnn_papers.benchmarks import traffic, workload
    from cnn_papers.runs import inputs

    work = workload.from_config(config, size or inputs.configured_input(config, "train_host"))
    work, devices = traffic.on_topology(work, flags.FLAGS.mesh, flags.FLAGS.topology)
    return traffic.as_text(traffic.report(work, devices))


def as_markdown(network: Network) -> str:
    """A Markdown table."""
    rows = [HEADER, ("---", "---:", "---:", "---:"), *_cells(network)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def as_json(network: Network) -> str:
    """An object with `input`, `layers`, `params` and `macs`."""
    return json.dumps(
        {**network._asdict(), "layers": [layer._asdict() for layer in network.layers]}, indent=1
    )


def _cells(network: Network) -> list[tuple[str, ...]]:
    def cells(name: str, shape: tuple[int, ...], params: int, macs: int) -> tuple[str, ...]:
        return (
            name,
            "×".join(map(str, shape)),
            f"{params:,}" if params else "",
            f"{macs:,}" if macs else "",
        )

    rows = [cells("image", network.input, 0, 0)]
    rows += [cells(*layer) for layer in network.layers]
    return [*rows, cells("total", (), network.params, network.macs)]


def zoo_table() -> str:
    """Every variant with its exact figures, what the paper prints of them, and the errors it
    reports, in Markdown.
    """
    from cnn_papers import zoo

    header = (
        "variant",
        "input",
        "parameters",
        "multiply-adds",
        "the paper prints",
        "errors reported, %",
    )
    rows = [header, ("---", "---", "---:", "---:", "---", "---")]
    for name in zoo.model_names():
        for variant, facts in zoo.model_module(name).FACTS.items():
            size = "×".join(map(str, facts.input))
            row = (
                f"{name} `{variant}`",
                size,
                f"{facts.params:,}",
                f"{facts.macs:,}",
                facts.stated,
            )
            rows.append((*row, _reported(name, variant)))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _reported(name: str, variant: str) -> str:
    """The errors of one variant, top-1 and top-5 of one protocol together."""
    if importlib.util.find_spec(f"configs.{name}") is None:
        return ""
    errors: dict[tuple[str, str, str], list[str]] = {}
    for result in importlib.import_module(f"configs.{name}").REPORTED:
        if result.variant == variant:
            place = (result.recipe, result.protocol, result.source)
            errors.setdefault(place, []).append(f"{result.metric[4:8]} {result.value}")
    return "; ".join(f"{', '.join(found)} ({', '.join(place)})" for place, found in errors.items())


FORMATS = {"text": as_text, "markdown": as_markdown, "json": as_json}


def cli() -> None:
    """The command line."""
    doors.config_flag()
    flags.DEFINE_enum("format", "text", list(FORMATS), "how the table is printed")
    flags.DEFINE_list(
        "input",
        [],
        "height,width,channels to trace with, instead of what the config feeds the network",
    )
    flags.DEFINE_bool("zoo", False, "print every variant of every network instead")
    flags.DEFINE_string("mesh", "", "data:N[,column:2]: the train step over that mesh instead")
    flags.DEFINE_string(
        "topology", "", "the train step on devices that need not be there: v5e:2x2, h100:8, cpu:8"
    )
    doors.run(main)


if __name__ == "__main__":
    cli()
