"""The network as a table like the papers print: python -m cnn_papers.describe --config=configs/googlenet.py."""

import json

from absl import flags

from cnn_papers import doors
from cnn_papers.counting import Network

HEADER = ("layer", "output", "parameters", "multiply-adds")


def main(argv: list[str]) -> None:
    """Prints the table of the network that the flags name, traced for its input without allocating anything."""
    from cnn_papers import assembly, counting, zoo
    from cnn_papers.errors import UserError

    if len(argv) > 1:
        raise UserError(f"unexpected argument '{argv[1]}'; overrides are written --config.key=value")
    config = doors.config_value()
    model = zoo.build_model(config.model_name, **config.model)
    size = flags.FLAGS.input
    if size and (len(size) != 3 or not all(side.isdecimal() for side in size)):
        raise UserError(f"--input={','.join(size)}: it takes height,width,channels, such as 224,224,3")
    size = tuple(map(int, size)) or assembly.configured_input(config)
    print(FORMATS[flags.FLAGS.format](counting.count(model, size)))


def as_text(network: Network) -> str:
    """Aligned columns."""
    rows = [HEADER, *_cells(network)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    lines.insert(-1, lines[1])
    return "\n".join(lines)


def as_markdown(network: Network) -> str:
    """A Markdown table."""
    rows = [HEADER, ("---", "---:", "---:", "---:"), *_cells(network)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def as_json(network: Network) -> str:
    """An object with `input`, `layers`, `params` and `macs`."""
    return json.dumps({**network._asdict(), "layers": [layer._asdict() for layer in network.layers]}, indent=1)


def _cells(network: Network) -> list[tuple[str, ...]]:
    def cells(name: str, shape: tuple[int, ...], params: int, macs: int) -> tuple[str, ...]:
        return name, "×".join(map(str, shape)), f"{params:,}" if params else "", f"{macs:,}" if macs else ""

    rows = [cells("image", network.input, 0, 0)]
    rows += [cells(*layer) for layer in network.layers]
    return [*rows, cells("total", (), network.params, network.macs)]


FORMATS = {"text": as_text, "markdown": as_markdown, "json": as_json}


def cli() -> None:
    """The command line."""
    doors.config_flag()
    flags.DEFINE_enum("format", "text", list(FORMATS), "how the table is printed")
    flags.DEFINE_list("input", [], "height,width,channels to trace with, instead of what the config feeds the network")
    doors.run(main)


if __name__ == "__main__":
    cli()
