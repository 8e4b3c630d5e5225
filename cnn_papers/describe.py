"""Prints a network as a table: python -m cnn_papers.describe --config=configs/googlenet.py.

- `--config=CONFIG`: layers, output shapes, parameters and multiply-adds, traced without allocating.
- `--workdir=RUN`, or `--weights=FILE` with `--config=CONFIG`: shape, mean and standard deviation of
  every trained parameter and batch statistic.
- `--mesh=data:4,column:2`: the train step over that mesh, on devices that need not exist: which
  layers communicate, how many bytes a step against the least possible, and what each device holds.
- `--topology=v5e:2x2`: the same, compiled for such TPUs; `h100:8` for GPUs.
- `--plot=net.svg`: the network as a diagram instead, with the branches of its layers, and for each
  its output and its share of parameters and multiply-adds.
- `--filters=filters.png`, with `--workdir=RUN` or `--weights=FILE`: the filters of the first layer
  instead, each stretched over its own range, those of each column apart.
- `--sources`: every key of the recipe of `--config` with its value and where that comes from: a
  section of the paper, a released file, or ours; in Markdown. Without `--config`, of all recipes;
  docs/recipes.md is its output.
- `--zoo`: every variant of every network in Markdown; docs/zoo.md is its output.
"""

import importlib
import importlib.util
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from cnn_papers import doors, terminal
from cnn_papers.counting import Network

SOURCES_HEAD = """# Recipes

Every value that a recipe sets, and its source: a section, table or figure of the paper above it, a
released file, or "not in paper" and "ours" where we chose it.
Generated: `python -m cnn_papers.describe --sources > docs/recipes.md`; with `--config` it prints \
one recipe."""
START = "Every recipe starts with these values, no paper's, and keeps those that it does not set."
DECIDING = (  # keys of the optimiser that every table shows
    "batch_size",
    "optim.lr",
    "optim.lr_batch",
    "optim.momentum",
    "optim.momentum_form",
    "optim.schedule",
    "optim.weight_decay",
    "optim.wd_mults",
)
HEADER = ("layer", "output", "parameters", "multiply-adds")


def main(argv: list[str]) -> None:
    """Prints the table that the flags name."""
    from cnn_papers.errors import UserError

    values = flags.FLAGS
    if len(argv) > 1:
        raise UserError(
            f"unexpected argument '{argv[1]}'; overrides are written --config.key=value"
        )
    if values.workdir or values.weights:
        print(_trained())
        return
    if values.filters:
        raise UserError("--filters is of trained weights: add --workdir=RUN, or --weights=FILE")
    of_others = values.zoo or values.sources or values.mesh or values.topology
    if sum(map(bool, (values.format != "text", values.plot, of_others))) > 1:
        raise UserError(
            "--format is for the table of one network, --plot draws it instead: "
            "--zoo and --sources are Markdown, --mesh and --topology are text"
        )
    if values.zoo:
        print(zoo_table())
        return
    if values.sources:
        print(_sources())
        return
    print(_network_table())


def _network_table() -> str:
    """Returns the layers of the network of `--config`, or its train step over a mesh."""
    from cnn_papers import counting, zoo
    from cnn_papers.errors import UserError
    from cnn_papers.runs import inputs

    values = flags.FLAGS
    config = doors.config_value()
    model = zoo.build_model(config.model_name, **config.model)
    size = values.input
    if size and (len(size) != 3 or not all(side.isdecimal() and int(side) for side in size)):
        raise UserError(
            f"--input={','.join(size)}: it takes height,width,channels, such as 224,224,3"
        )
    size = tuple(map(int, size))
    if values.mesh or values.topology:
        return _step(config, size)
    network = counting.count(model, size or inputs.configured_input(config))
    if not values.plot:
        return FORMATS[values.format](network)
    from cnn_papers.reporting import network_diagram

    name = zoo.full_name(config.model_name, **config.model)
    network_diagram.write(pathlib.Path(values.plot), name, model, network)
    return f"{values.plot}: {name}, {len(network.layers)} layers"


def _trained() -> str:
    """Returns the trained parameters and batch statistics of `--workdir` or `--weights`.

    With `--filters` it draws the first layer's filters, and returns what is in the picture.
    """
    from cnn_papers import zoo
    from cnn_papers.errors import UserError
    from cnn_papers.runs import inputs, pictures
    from cnn_papers.weights import trained

    values = flags.FLAGS
    if values.workdir and values.weights:
        raise UserError("--workdir=RUN and --weights=FILE each name a network: give one of them")
    for name in ("zoo", "sources", "mesh", "topology", "input", "format", "plot"):
        if values[name].present:
            raise UserError(
                f"--{name} does not go with --workdir or --weights, which print trained parameters"
            )
    if values.workdir:
        if values.config is not None:
            raise UserError("--workdir=RUN takes the config of the run: leave out --config")
        network = trained.from_run(pathlib.Path(values.workdir))
        name, model, variables = network.description, network.model, network.variables
        channels = network.image_shape[-1]
    else:
        config = doors.config_value()
        model = zoo.build_model(config.model_name, **config.model)
        variables, _ = trained.read_file(values.weights, config, model)
        name = trained.describe_file(values.weights, config)
        channels = inputs.configured_input(config)[-1]
    if not values.filters:
        return f"{name}\n{as_overview(variables, model)}"
    path, columns = pathlib.Path(values.filters), getattr(model, "columns", 1)
    return f"{path}: {pictures.draw_filters(path, variables['params'], channels, columns)}, {name}"


def as_overview(variables: Mapping[str, Any], model: Any) -> str:
    """Returns a table of the arrays in `params` and one of those in `batch_stats`, with totals.

    A row gives name, shape, type, size, mean and standard deviation. Blocks that `model` runs as
    one loop are listed separately, as weight files hold them.
    """
    from clu import parameter_overview

    from cnn_papers.weights import convert

    tables = []
    for collection, tree in variables.items():
        if tree:
            arrays = convert.flatten({collection: tree}, model)
            tables.append(parameter_overview.get_parameter_overview(arrays, include_stats=True))
    return "\n".join(tables)


def as_text(network: Network) -> str:
    """Returns the layers as aligned columns."""
    return terminal.aligned([HEADER, *_cells(network)])


def _step(config: Any, size: tuple[int, ...]) -> str:
    """Returns the train step over `--mesh`, on fake devices or those of `--topology`."""
    from cnn_papers.benchmarks import traffic, workload
    from cnn_papers.runs import inputs

    work = workload.from_config(config, size or inputs.configured_input(config, "train_host"))
    work, devices = traffic.on_topology(work, flags.FLAGS.mesh, flags.FLAGS.topology)
    return traffic.as_text(traffic.report(work, devices))


def as_markdown(network: Network) -> str:
    """Returns the layers as a Markdown table."""
    rows = [HEADER, ("---", "---:", "---:", "---:"), *_cells(network)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def as_json(network: Network) -> str:
    """Returns the layers as a JSON object with `input`, `layers`, `params` and `macs`."""
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
    """Returns every variant of every network as a Markdown table.

    Columns: exact numbers, those that the paper prints, and the errors that it reports.
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
    """Returns the errors of one variant, with top-1 and top-5 of a protocol together."""
    if importlib.util.find_spec(f"configs.{name}") is None:
        return ""
    errors: dict[tuple[str, str, str], list[str]] = {}
    for result in importlib.import_module(f"configs.{name}").REPORTED:
        if result.variant == variant:
            protocol = result.protocol.partition(";")[0]
            place = (result.recipe, protocol, result.source)
            errors.setdefault(place, []).append(f"{result.metric.partition('_')[0]} {result.value}")
    return "; ".join(
        f"{', '.join(values)} ({', '.join(place)})" for place, values in errors.items()
    )


def _sources() -> str:
    """Returns the sources of the recipe of `--config`, or the page of all recipes without it."""
    from cnn_papers.errors import UserError

    if flags.FLAGS.config is None:
        return sources_page()
    if overrides := doors.config_overrides():
        raise UserError(
            f"--sources is of the recipe as its file has it: leave out --config.{min(overrides)}"
        )
    own, start = _sources_of(doors.config_file())
    return f"{as_sources(own)}\n\n{START}\n\n{as_sources(start)}"


def sources_page() -> str:
    """Returns the page of all recipes: a table for each, and one of what all start from."""
    from cnn_papers.runs import config_files, recipe_sources

    start: dict[str, Any] = {}
    parts = []
    for file in config_files.all_files():
        module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
        parts.append(f"## {(module.__doc__ or file).splitlines()[0].rstrip('.')}")
        for recipe in recipe_sources.recipes(file):
            config = config_files.read(f"{file}:{recipe}")
            network = f"{config.model_name} `{config.model.variant}`"
            own, others = _sources_of(f"{file}:{recipe}")
            start |= {setting.key: setting for setting in others}
            classes = f"{config.model.num_classes} classes"
            parts += [f"### `{file}:{recipe}`", f"{network}, {classes}.", as_sources(own)]
    of_all = as_sources([start[key] for key in sorted(start)])
    return "\n\n".join([SOURCES_HEAD, f"## All recipes\n\n{START}", of_all, *parts])


def _sources_of(config: str) -> tuple[list[Any], list[Any]]:
    """Returns the settings of a recipe, and those that it leaves as every recipe starts.

    The first has DECIDING too, left or not.
    """
    from cnn_papers.runs import recipe_sources

    own, start = [], []
    for setting in recipe_sources.settings(config):
        if not setting.from_base:
            own.append(setting)
            continue
        start.append(setting)
        if setting.key in DECIDING:
            own.append(setting._replace(source=f"as every recipe starts: {setting.source}"))
    return own, start


def as_sources(settings: Sequence[Any]) -> str:
    """Returns keys, values and sources as a Markdown table."""
    rows = [("key", "value", "source"), ("---", "---", "---")]
    rows += [
        (f"`{setting.key}`", f"`{setting.value!r}`", setting.source or "–") for setting in settings
    ]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows
    )


FORMATS = {"text": as_text, "markdown": as_markdown, "json": as_json}


def define_flags() -> None:
    """Defines the flags of this command."""
    doors.config_flag()
    flags.DEFINE_enum("format", "text", list(FORMATS), "how the table is printed")
    flags.DEFINE_list(
        "input",
        [],
        "height,width,channels to trace with, instead of what the config feeds the network",
    )
    doors.path_flag("plot", "draw the network of --config to this file instead", suffix=".svg")
    doors.path_flag("filters", "draw the first layer's filters to this file", suffix=".png")
    flags.DEFINE_bool("zoo", False, "print every variant of every network instead")
    flags.DEFINE_bool("sources", False, "print where every value of the recipe comes from instead")
    flags.DEFINE_string(
        "mesh", "", "data:N[,column:2]: print the train step over that mesh instead"
    )
    doors.path_flag("workdir", "folder of a run: print its trained parameters instead")
    doors.path_flag(
        "weights",
        "published weights, a file or a name on the hub, for the network of --config: "
        "print its parameters instead",
    )
    flags.DEFINE_string(
        "topology",
        "",
        "print the train step on devices that need not exist: v5e:2x2, h100:8, cpu:8",
    )


def cli() -> None:
    """Runs the command line."""
    doors.run(main, define_flags)


if __name__ == "__main__":
    cli()
