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
    """Returns the claims by name, by the name of their file in `configs/claims` ("alexnet")."""
    names = sorted(
        module.name
        for module in pkgutil.iter_modules(configs.claims.__path__)
        if module.name != SHARED
    )
    return {name: importlib.import_module(f"configs.claims.{name}").CLAIMS for name in names}


def all_claims() -> dict[str, Claim]:
    """Returns every claim by its name, in the order of the files.

    Raises UserError if two have the same name.
    """
    claims_by_name: dict[str, Claim] = {}
    for file, claims in claims_of().items():
        if twice := claims_by_name.keys() & claims.keys():
            raise UserError(
                f"configs/claims/{file}.py: another file has a claim '{min(twice)}' too; rename one"
            )
        claims_by_name |= claims
    return claims_by_name


def find(name: str) -> Claim:
    """Returns the claim `name`; UserError with all names and statements if there is none."""
    claims = all_claims()
    if name not in claims:
        hint = did_you_mean(name, claims)
        hint = f"{hint} " if hint else ""
        width = max(map(len, claims), default=0)
        choices = [f"{known:<{width}}  {claim.statement}" for known, claim in claims.items()]
        raise UserError(f"there is no claim '{name}'; {hint}there are {len(claims)}:", choices)
    return claims[name]
