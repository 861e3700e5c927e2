from .artifacts import InvalidOutcome as InvalidOutcome
from .artifacts import Outcome as Outcome
from .artifacts import read_outcome as read_outcome
from .detector import Detector as Detector
from .serialization import InvalidDetector as InvalidDetector
from .serialization import load_detector as load_detector
from .serialization import save_detector as save_detector
from .train import train_detector as train_detector
