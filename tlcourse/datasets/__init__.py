"""Load, verify, divide and examine images; every public name can be imported from here."""

from tlcourse.datasets.breastmnist import (
    DatasetUnavailable,
    fetch_breastmnist,
    find_breastmnist,
)
from tlcourse.datasets.duplicates import (
    DuplicateReport,
    near_duplicates,
    shared_images,
)
from tlcourse.datasets.folds import grouped_folds
from tlcourse.datasets.imagesets import ImageSet, InvalidDataset, LeakageWarning, Split
from tlcourse.datasets.likeness import near_groups
from tlcourse.datasets.loading import load_images
from tlcourse.datasets.splitting import grouped_split

__all__ = [
    "DatasetUnavailable",
    "DuplicateReport",
    "ImageSet",
    "InvalidDataset",
    "LeakageWarning",
    "Split",
    "fetch_breastmnist",
    "find_breastmnist",
    "grouped_folds",
    "grouped_split",
    "load_images",
    "near_duplicates",
    "near_groups",
    "shared_images",
]
