"""The nine strategies of the course by name: what lessons compare and `tlcourse train` offers.

They fit every network: what they release is counted from the head (see `Strategy`). Grids
(`data/experiments/*.toml`) spell them out again with the stages of their network, so that each file
says all that it ran; a test holds the two together.
"""

from __future__ import annotations

from tlcourse.experiments.strategies import Strategy

NAMED = {
    strategy.name: strategy
    for strategy in (
        Strategy("scratch", pretrained=False, warmup=0.1),
        Strategy("frozen", freeze=True),
        Strategy("cold"),
        Strategy("warmup", warmup=0.2),
        Strategy("lp_ft", freeze=True, release={"stem": 0.5}),
        Strategy("discriminative", backbone=0.1),
        Strategy("decay", decay=0.38461538),  # 1 / 2.6 (Howard & Ruder 2018)
        Strategy(
            "gradual",
            freeze=True,
            release={"head-1": 0.2, "head-2": 0.4, "head-3": 0.6, "stem": 0.8},
        ),
        Strategy("warmup_discriminative", warmup=0.2, backbone=0.1),
    )
}
"""By name; rates are left to whoever trains."""


def named_strategy(name: str) -> Strategy:
    """Return the strategy of that name.

    Raises:
        ValueError: If there is none; the message lists those there are.

    >>> named_strategy("lp_ft").release
    {'stem': 0.5}
    """
    if name not in NAMED:
        raise ValueError(f"expected a strategy of {', '.join(NAMED)}; got {name!r}")
    return NAMED[name]
