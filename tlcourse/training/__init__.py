"""Train a network, and ask it for probabilities."""

from tlcourse.training.fit import fit, train_epoch
from tlcourse.training.predict import predict

__all__ = ["fit", "predict", "train_epoch"]
