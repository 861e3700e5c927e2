"""Compare two states of a network: what its stages say (CKA), how far their weights moved."""

from tlcourse.similarity.cka import MinibatchCKA, cka_by_stage, linear_cka
from tlcourse.similarity.drift import drift_by_stage

__all__ = ["MinibatchCKA", "cka_by_stage", "drift_by_stage", "linear_cka"]
