"""Pretrained networks: their weights, preprocessing, named stages and heads."""

from tlcourse.backbones.architectures import (
    ARCHITECTURES,
    Architecture,
    UnsupportedModel,
    head,
    head_name,
)
from tlcourse.backbones.batchnorm import calibrate_statistics
from tlcourse.backbones.factory import load_backbone, replace_head
from tlcourse.backbones.preprocessing import (
    exact_size,
    image_categories,
    minimum_size,
    preprocess,
    weights_of,
)
from tlcourse.backbones.stages import HIDDEN, Stage, stages
from tlcourse.backbones.weights import (
    WeightsUnavailable,
    checkpoint_path,
    classifiers,
    fetch_checkpoint,
    resolve_weights,
)

__all__ = [
    "ARCHITECTURES",
    "HIDDEN",
    "Architecture",
    "Stage",
    "UnsupportedModel",
    "WeightsUnavailable",
    "calibrate_statistics",
    "checkpoint_path",
    "classifiers",
    "exact_size",
    "fetch_checkpoint",
    "head",
    "head_name",
    "image_categories",
    "load_backbone",
    "minimum_size",
    "preprocess",
    "replace_head",
    "resolve_weights",
    "stages",
    "weights_of",
]
