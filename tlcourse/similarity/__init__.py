"""Compare two states of a network, stage by stage."""

from tlcourse.similarity.cka import MinibatchCKA, cka_by_stage, linear_cka
from tlcourse.similarity.drift import drift_by_stage

__all__ = ["MinibatchCKA", "cka_by_stage", "drift_by_stage", "linear_cka"]
