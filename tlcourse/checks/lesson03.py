"""Checks of lesson 03, Replace the head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torchvision import models

from tlcourse.checks.core import call, check, close, compare, number, numbers, require

SKELETONS = ("densenet121", "densenet201")
"""Two, because the number of inputs differs: a number typed in fits only one of them."""


@check("print(densenet.classifier), then assign a new nn.Linear to that name and return densenet")
def check_two_classes(function: Callable[[nn.Module], nn.Module]) -> str:
    """Check a function that gives a DenseNet a head with two answers."""
    for name in SKELETONS:
        with torch.device("meta"):
            model = models.get_model(name)
        old = model.classifier
        _check_head(name, call(function, model), old)
    return "the head has a new layer of its own size, on two DenseNets with different inputs"


def _check_head(name: str, model: object, old: nn.Linear) -> None:
    require(isinstance(model, nn.Module), "return the network, not something else")
    require(not isinstance(model, nn.Linear), "that returns the layer: return the whole network")
    for wrong in ("fc", "heads", "head"):
        require(
            not hasattr(model, wrong),
            f"{name} has no {wrong}: the assignment made a new attribute that the forward never "
            "calls, and the thousand answers stay. DenseNet's head is called classifier",
        )
    new: Any = getattr(model, "classifier", None)
    require(new is not old, "the classifier is still the old one, with its thousand answers")
    require(
        isinstance(new, nn.Linear), f"expected an nn.Linear as classifier, got {type(new).__name__}"
    )
    require(
        new.in_features == old.in_features,
        f"{name} hands its head {old.in_features} numbers, the new layer takes {new.in_features}: "
        "read in_features from the old layer, it differs from network to network",
    )
    require(new.out_features == 2, f"two classes need 2 answers, the layer has {new.out_features}")


@check("add up parameter.numel() over model.parameters() where parameter.requires_grad")
def check_count(function: Callable[[nn.Module], int]) -> str:
    """Check a function that counts the numbers that may move."""
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    model[0].requires_grad_(False)
    value = number(call(function, model), "the count")
    require(not close(value, 39), "that counts every parameter: leave out those that are frozen")
    require(not close(value, 24), "turned round: that counts the frozen ones")
    require(not close(value, 2), "that counts tensors: add up .numel(), the numbers in each")
    require(not close(value, 12), "the bias is missing: go through all of model.parameters()")
    require(close(value, 15), f"a frozen 5 x 4 layer, then a 4 x 3 layer: expected 15, got {value}")
    return "15 of 39 in the test network; tlcourse.freezing.report.count_trainable counts the same"


@check("count each class with np.bincount(labels); N / (C * counts) is large for a rare class")
def check_balanced_weights(function: Callable[[NDArray[np.int64]], ArrayLike]) -> str:
    """Check a function that gives each class its balanced weight."""
    labels = np.array([0] * 2 + [1] * 6 + [2] * 4)
    weights = numbers(call(function, labels), "one number per class")
    counts = np.bincount(labels)
    require(
        weights.shape == (3,), f"expected one weight per class, shape (3,), got {weights.shape}"
    )
    expected = len(labels) / (3 * counts)
    compare(
        weights,
        expected,
        f"2, 6 and 4 images: expected {expected.round(3)}, got {weights.round(3)}",
        (counts * 3 / 12, "swapped: the common class got the large weight. Divide by the counts"),
        (counts / 12, "those are shares of the classes: the rare one needs the larger weight"),
        (12 / counts, "divide by the number of classes C as well, so that the mean weight is 1"),
        (1 / counts, "right proportions, but tiny: without N / C every step shrinks, too"),
    )
    return "every class now weighs the same in the loss; fit(class_weights='balanced') does this"
