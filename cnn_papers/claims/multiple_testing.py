"""Corrects verdicts for asking many claims at once."""

from collections.abc import Mapping

from cnn_papers.claims.verdicts import ERROR_RATE


def holm(rates: Mapping[str, float], error_rate: float = ERROR_RATE) -> list[str]:
    """Returns the names that are still decided if one wrong decision among all has `error_rate`.

    Holm's procedure (1979): of m claims in the order of their rates, the i-th (from 0) must be
    below error_rate / (m - i), and all before it too.

    Args:
      rates: by name, of every claim that was asked, the lowest error rate at which it is decided.
      error_rate: of at least one wrong decision.
    """
    decided = []
    for place, name in enumerate(sorted(rates, key=rates.__getitem__)):
        if rates[name] > error_rate / (len(rates) - place):
            break
        decided.append(name)
    return decided
