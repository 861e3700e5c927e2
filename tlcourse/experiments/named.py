"""The nine strategies of the course by name: what lessons compare and `tlcourse train` offers.

Grids (`data/experiments/*.toml`) spell them out again, so that each file says all that it ran; a
test holds the two together.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from tlcourse.backbones import stages
from tlcourse.experiments.strategies import Strategy

_WRITTEN_FOR = ("stem", "stage1", "stage2", "stage3", "stage4", "stage5", "head")
"""Stages of MobileNetV2, whose names the strategies use."""

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
            release={"stage5": 0.2, "stage4": 0.4, "stage3": 0.6, "stem": 0.8},
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


def fitted_to(strategy: Strategy, model: nn.Module) -> Strategy:
    """Return the strategy with the stages it releases named as `model` names them.

    Strategies are written for MobileNetV2. Another network has more stages or fewer; what counts
    is how far a stage lies from the head. Where a network is too short, the stem stands for what
    it lacks.

    Args:
        strategy: One whose releases name stages of MobileNetV2.
        model: A classifier of torchvision.

    Raises:
        ValueError: If the strategy releases a stage that MobileNetV2 lacks.

    >>> from torchvision.models import resnet18
    >>> list(fitted_to(NAMED["gradual"], resnet18()).release)
    ['stage4', 'stage3', 'stage2', 'stem']
    """
    names, release = list(stages(model)), dict[str, float]()
    for stage, share in strategy.release.items():
        if stage not in _WRITTEN_FOR:
            raise ValueError(
                f"{strategy.name}: expected stages of {_WRITTEN_FOR[:-1]}, got {stage!r}"
            )
        from_head = len(_WRITTEN_FOR) - _WRITTEN_FOR.index(stage)
        place = 0 if stage == "stem" else max(0, len(names) - from_head)
        release.setdefault(names[place], share)
    return replace(strategy, release=release)
