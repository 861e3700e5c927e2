"""Build a detector by the whole protocol, keep it as one safe file, use it on new images."""

from tlcourse.detectors.building import train_detector
from tlcourse.detectors.detector import Detector
from tlcourse.detectors.files import InvalidDetector
from tlcourse.detectors.keeping import load_detector, save_detector
from tlcourse.detectors.outcomes import InvalidOutcome, Outcome, read_outcome

__all__ = [
    "Detector",
    "InvalidDetector",
    "InvalidOutcome",
    "Outcome",
    "load_detector",
    "read_outcome",
    "save_detector",
    "train_detector",
]
