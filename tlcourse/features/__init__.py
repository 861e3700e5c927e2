"""Features of frozen networks and of classic extractors, and what a probe makes of them."""

from tlcourse.features.extract import cache_features, extract_features, flat_maps, stage_features
from tlcourse.features.probe import probe

__all__ = ["cache_features", "extract_features", "flat_maps", "probe", "stage_features"]
