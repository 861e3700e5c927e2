"""Right, blank and wrong answers to the exercises of lesson 03."""

import numpy as np
from torch import nn

from tlcourse.checks import lesson03


def replaced(name="classifier", inputs=None, classes=2):
    def function(densenet):
        setattr(densenet, name, nn.Linear(inputs or densenet.classifier.in_features, classes))
        return densenet

    return function


def count(keep):
    return lambda model: sum(p.numel() for p in model.parameters() if keep(p))


def weights(formula):
    return lambda labels: formula(np.bincount(labels), len(labels))


RIGHT = [
    (lesson03.check_two_classes, replaced()),
    (lesson03.check_count, count(lambda p: p.requires_grad)),
    (lesson03.check_balanced_weights, weights(lambda counts, n: n / (len(counts) * counts))),
]
BLANK = [(check, lambda value: ...) for check, _ in RIGHT]
WRONG = [
    (lesson03.check_two_classes, replaced("fc"), "has no fc"),
    (lesson03.check_two_classes, replaced("heads"), "has no heads"),
    (lesson03.check_two_classes, replaced(inputs=1024), "densenet201 hands its head 1920"),
    (lesson03.check_two_classes, replaced(inputs=512), "the new layer takes 512"),
    (lesson03.check_two_classes, replaced(classes=1000), "the layer has 1000"),
    (lesson03.check_two_classes, lambda densenet: densenet, "still the old one"),
    (lesson03.check_two_classes, lambda densenet: densenet.classifier, "the whole network"),
    (lesson03.check_two_classes, lambda densenet: None, "is the `return` missing"),
    (lesson03.check_count, count(lambda p: True), "every parameter"),
    (lesson03.check_count, count(lambda p: not p.requires_grad), "turned round"),
    (lesson03.check_count, lambda m: sum(p.requires_grad for p in m.parameters()), "tensors"),
    (lesson03.check_count, count(lambda p: p.requires_grad and p.ndim > 1), "bias is missing"),
    (lesson03.check_count, lambda model: 7, "expected 15, got 7"),
    (lesson03.check_balanced_weights, weights(lambda c, n: c * len(c) / n), "swapped"),
    (lesson03.check_balanced_weights, weights(lambda c, n: c / n), "shares"),
    (lesson03.check_balanced_weights, weights(lambda c, n: n / c), "number of classes"),
    (lesson03.check_balanced_weights, weights(lambda c, n: 1 / c), "tiny"),
    (lesson03.check_balanced_weights, lambda labels: 1.5, "one weight per class"),
    (lesson03.check_balanced_weights, lambda labels: "abc", "one number per class"),
    (lesson03.check_balanced_weights, lambda labels: [1, 1, 1], "2, 6 and 4 images"),
]
