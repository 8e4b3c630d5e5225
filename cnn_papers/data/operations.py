"""Parses the op strings of `config.data`, each of them once."""

from typing import Any, NamedTuple

from cnn_papers import opstrings
from cnn_papers.data import device_ops, host_ops
from cnn_papers.opstrings import OpString


class DataOps(NamedTuple):
    """The operations of `config.data`: on the host and the device, in training and evaluation."""

    train_host: OpString
    eval_host: OpString
    train_device: OpString
    eval_device: OpString


def parse_data(data: Any) -> DataOps:
    """Parses the four op strings of `data`, which is `config.data`; UserError if one is wrong."""
    return DataOps(
        train_host=parse_host(data.train_host, key="data.train_host"),
        eval_host=parse_host(data.eval_host, key="data.eval_host"),
        train_device=parse_device(data.train_device, key="data.train_device"),
        eval_device=parse_device(data.eval_device, key="data.eval_device"),
    )


def parse_host(text: str, *, key: str) -> OpString:
    """Parses operations of `host_ops`; `key` is the config key of `text`, for messages."""
    return OpString(key, text, opstrings.parse(text, host_ops, leading=1, key=key))


def parse_device(text: str, *, key: str) -> OpString:
    """Parses operations of `device_ops`; `key` is the config key of `text`, for messages."""
    return OpString(key, text, opstrings.parse(text, device_ops, leading=1, key=key))
