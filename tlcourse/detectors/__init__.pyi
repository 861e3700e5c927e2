from .artifacts import Artifacts as Artifacts
from .artifacts import InvalidArtifacts as InvalidArtifacts
from .artifacts import read_artifacts as read_artifacts
from .detector import Detector as Detector
from .serialization import InvalidDetector as InvalidDetector
from .serialization import load_detector as load_detector
from .serialization import save_detector as save_detector
from .train import train_detector as train_detector
