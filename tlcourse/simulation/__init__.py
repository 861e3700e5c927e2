"""Simulated breast ultrasound and blood smears; see the data cards in `data/README.md`."""

from tlcourse.simulation.phantom import Phantom, simulate
from tlcourse.simulation.scanner import SHIFTS, Shift

__all__ = ["SHIFTS", "Phantom", "Shift", "simulate"]
