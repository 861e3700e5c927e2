"""Make a single optimizer step, and say how far it took each group."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def one_step(
    model: nn.Module, optimizer: Optimizer, images: Tensor, labels: Tensor
) -> pd.DataFrame:
    """Make one step of cross-entropy; tell the length of each group's gradient and way.

    The first step of SGD has no past, whatever its momentum: each group goes its rate times its
    gradient. AdamW divides the gradient by its size, so its way hangs on the rate alone.

    Args:
        model: A classifier; it is trained by the step, in the modes it is in.
        optimizer: What is to make the step.
        images: Prepared images `(N, 3, H, W)`, on the model's device.
        labels: int64 `(N,)`.

    Returns:
        One row per group (index `group`): `lr`, `gradient` (its L2 norm), `moved` (the L2 norm of
        the change of the weights), `moved_per_gradient`, NaN for a group without a gradient.

    >>> layer = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    >>> groups = [{"params": layer.parameters(), "lr": 0.5, "name": "head"}]
    >>> images, labels = torch.ones(4, 3, 1, 1), torch.tensor([0, 1, 1, 1])
    >>> table = one_step(layer, torch.optim.SGD(groups), images, labels)
    >>> table["moved_per_gradient"].round(3).to_dict()
    {'head': 0.5}
    """
    optimizer.zero_grad()
    loss: Tensor = nn.functional.cross_entropy(model(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [_norm([p.grad for p in g["params"]]) for g in optimizer.param_groups]
    before = [[p.detach().clone() for p in g["params"]] for g in optimizer.param_groups]
    optimizer.step()
    rows = {}
    for i, (group, old) in enumerate(zip(optimizer.param_groups, before, strict=True)):
        ways = [p.detach() - q for p, q in zip(group["params"], old, strict=True)]
        rows[group.get("name", f"group{i}")] = float(group["lr"]), gradients[i], _norm(ways)
    columns = ["lr", "gradient", "moved"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("group")
    length = table["gradient"].where(table["gradient"] > 0)
    return table.assign(moved_per_gradient=table["moved"] / length)


def _norm(tensors: list[Tensor | None]) -> float:
    # In double precision: a small rate changes weights by little more than their rounding.
    present = [t.double() for t in tensors if t is not None]
    return float(torch.nn.utils.get_total_norm(present))
