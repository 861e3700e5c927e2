"""Feed images to a network."""

from tlcourse.loaders.batches import PreparedImages, TrainingBatches

__all__ = ["PreparedImages", "TrainingBatches"]
