"""A config as one flat dictionary."""

from typing import Any


def flat(config: Any) -> dict[str, Any]:
    """The values of a config by dotted key."""
    values = {}
    for key, value in config.items():
        values |= (
            {f"{key}.{k}": v for k, v in flat(value).items()}
            if hasattr(value, "items")
            else {key: value}
        )
    return values
