"""A trained classifier with all that its use needs: classes, sizes, preprocessing, threshold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn
from tqdm.auto import tqdm

from tlcourse.datasets.base import InvalidDataset, Skipped
from tlcourse.datasets.folder import SKIPPING, read_image
from tlcourse.metrics.calibration import apply_temperature
from tlcourse.training.predict import predict

FILES_AT_ONCE = 64
"""Image files held in memory together."""


@dataclass(frozen=True, eq=False)
class Detector:
    """A classifier that answers in its own words, whatever process it is in.

    Attributes:
        model: The network, in eval mode.
        backbone: Its name in torchvision.
        classes: What its answers mean, in their order.
        size: Side in pixels at which the network sees an image.
        image_shape: `(H, W)` grey or `(H, W, 3)` colour: what image files are brought to before,
            as the images that it learned from were.
        preprocessing: Mean and standard deviation per channel, interpolation, and the weights of
            torchvision that they come from.
        temperature: What logits are divided by (Guo et al. 2017), or None.
        threshold: Probability of `positive` from which an image is called so, or None: the most
            probable class is the answer.
        positive: The class that the threshold is for.
        notes: What else the file says of itself.
        version: Version of the package that wrote it.
    """

    model: nn.Module
    backbone: str
    classes: tuple[str, ...]
    size: int
    image_shape: tuple[int, ...]
    preprocessing: Mapping[str, Any]
    temperature: float | None
    threshold: float | None
    positive: str | None
    notes: Mapping[str, Any]
    version: str

    def __repr__(self) -> str:
        return f"Detector({self.backbone} at {self.size} px: {', '.join(self.classes)})"

    def predict(self, images: NDArray[np.uint8]) -> pd.DataFrame:
        """Return the probability of each class (columns) for each image (rows).

        Args:
            images: uint8 `(N, H, W)` or `(N, H, W, 3)`, N from 1 up.

        Raises:
            ValueError: If there is no image.
            TypeError: If they are not uint8.
        """
        probs = predict(self.model, images, size=self.size)
        if self.temperature is not None:
            probs = apply_temperature(probs, self.temperature)
        return pd.DataFrame(probs, columns=list(self.classes))

    def predict_files(
        self, paths: Iterable[Path | str], *, skip_bad: bool = False, progress: bool = False
    ) -> pd.DataFrame:
        """Return the probability of each class (columns) for each image file (rows, by its path).

        Args:
            paths: Image files, one or more.
            skip_bad: Whether to leave out files that cannot be read; `.attrs["skipped"]` of the
                table lists them with the reason. Otherwise the first one is an error.
            progress: Whether to show a progress bar.

        Raises:
            InvalidDataset: If a file cannot be read, and `skip_bad` is not set.
        """
        files, tables = [str(path) for path in paths], []
        skipped: list[Skipped] = []
        with tqdm(total=len(files), unit="image", leave=False, disable=not progress) as bar:
            for start in range(0, len(files), FILES_AT_ONCE):
                part = files[start : start + FILES_AT_ONCE]
                images, read = self._read(part, skipped if skip_bad else None)
                if read:
                    tables.append(self.predict(np.stack(images)).set_axis(read))
                bar.update(len(part))
        empty = pd.DataFrame(columns=list(self.classes), dtype=float)
        table = pd.concat(tables) if tables else empty
        table.attrs["skipped"] = skipped
        return table.rename_axis("file")

    def predicted_classes(self, probs: pd.DataFrame) -> pd.Series[str]:
        """Return the predicted class of each row of probabilities that `predict` returned."""
        if self.threshold is None or self.positive is None:
            best = probs.to_numpy(dtype=float).argmax(axis=1)
            return pd.Series(np.array(self.classes)[best], index=probs.index, dtype=str)
        (other,) = set(self.classes) - {self.positive}
        called = probs[self.positive].to_numpy(dtype=float) >= self.threshold
        return pd.Series(np.where(called, self.positive, other), index=probs.index, dtype=str)

    def _read(
        self, files: list[str], skipped: list[Skipped] | None
    ) -> tuple[list[NDArray[np.uint8]], list[str]]:
        images, read = [], []
        height, width = self.image_shape[:2]
        for file in files:
            try:
                colour = len(self.image_shape) == 3
                images.append(read_image(Path(file), (height, width), colour=colour))
                read.append(file)
            except InvalidDataset as error:
                if skipped is None:
                    remedy = f"{error.remedy or 'Mend it'}, or go on without it: {SKIPPING}"
                    raise InvalidDataset(file, error.expected, error.found, remedy) from error
                skipped.append(Skipped(file, error.found))
        return images, read
