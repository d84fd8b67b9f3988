"""Figures of others, that a score stands beside. A score is comparable only where the rules are the same."""

from typing import NamedTuple


class Reference(NamedTuple):
    """A published mean return.

    Attributes:
        mean: mean return.
        std: standard deviation over the episodes.
        n: episodes.
        label: what to write beside the line; says whose figure it is.
    """

    mean: float
    std: float
    n: int
    label: str


# By rules (``BatchEnv.preset``). Ha & Schmidhuber 2018, tables 1 and 2; theirs was CarRacing-v0, whose rules v3 keeps.
REFERENCES: dict[str, tuple[Reference, ...]] = {
    "takecover-skill4-limit2100": (
        Reference(1092, 556, 100, "paper, real\n1092 (τ 1.15)"),
        Reference(210, 108, 100, "paper, random\n210"),
    ),
    "carracing-v3-limit1000": (Reference(906, 21, 100, "paper, real\n906 (v0)"),),
}
