"""Finds the claims of `configs/claims`."""

import functools
import importlib
import pkgutil

import configs.claims
from cnn_papers.errors import UserError, did_you_mean
from cnn_papers.facts import Claim

SHARED = "common"  # the file of settings that claims share


@functools.cache
def claims_of() -> dict[str, dict[str, Claim]]:
    """The claims by name, by the name of the config file they belong to ("alexnet" of
    `configs/claims/alexnet.py`).
    """
    names = sorted(
        module.name
        for module in pkgutil.iter_modules(configs.claims.__path__)
        if module.name != SHARED
    )
    return {name: importlib.import_module(f"configs.claims.{name}").CLAIMS for name in names}


def all_claims() -> dict[str, Claim]:
    """Every claim by its name, in the order of the files; UserError where two have the same name."""
    found: dict[str, Claim] = {}
    for file, claims in claims_of().items():
        if twice := found.keys() & claims.keys():
            raise UserError(
                f"configs/claims/{file}.py: another file has a claim '{min(twice)}' too; rename one"
            )
        found |= claims
    return found


def find(name: str) -> Claim:
    """The claim `name`; a UserError with the name and statement of each claim there is."""
    known = all_claims()
    if name not in known:
        hint = did_you_mean(name, known)
        hint = f"{hint} " if hint else ""
        width = max(map(len, known), default=0)
        choices = [f"{each:<{width}}  {claim.statement}" for each, claim in known.items()]
        raise UserError(f"there is no claim '{name}'; {hint}there are {len(known)}:", choices)
    return known[name]
