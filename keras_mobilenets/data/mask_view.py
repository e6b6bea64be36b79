"""What a network sees of a picture and of its mask: scaled, cut, and mirrored alike; with Pillow and NumPy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_mobilenets.data.images import BrokenImage, read_image, read_pixels
from keras_mobilenets.data.masks import Legend, resized_mask
from keras_mobilenets.data.names import STRETCH
from keras_mobilenets.tasks.segmentation import IGNORE

SCALES = (0.5, 2.0)
"""By how much a picture is made smaller or larger in training, as DeepLab's and torchvision's recipes do."""
GREY = (127, 127, 127)
"""What a picture is surrounded with; nobody has labelled it."""


@dataclasses.dataclass(frozen=True)
class MaskView:
    """Of pictures with a mask each. Both are stretched to the size of the network, and nothing is cut off.

    Args:
        image_size: (height, width).
        augment: "none"; "crop": scaled by .5 to 2, and moved; or "crop_flip": mirrored, too.
        legend: what the masks' values stand for.
    """

    image_size: tuple[int, int]
    augment: Sequence[str]
    legend: Legend
    mixed: ClassVar[None] = None

    def training(self, picture: tf.Tensor, target: Any, plain: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, Any]:
        image, mask = tf.numpy_function(self._training, [picture, target, seed], [tf.uint8, tf.uint8])
        return tf.cast(tf.ensure_shape(image, (*self.image_size, 3)), tf.float32), self._shaped(mask)

    def evaluation(self, picture: tf.Tensor, target: Any) -> tuple[tf.Tensor, Any]:
        image, mask = tf.numpy_function(self._seen, [picture, target], [tf.uint8, tf.uint8])
        return tf.ensure_shape(image, (*self.image_size, 3)), self._shaped(mask)

    def _shaped(self, mask: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(mask, self.image_size)

    def _seen(self, picture: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
        """A picture and its mask at the network's size, uint8."""
        image, mask = self._whole(picture, target)
        return read_image(image, self.image_size, crop=False), resized_mask(mask, self.image_size)

    def _training(self, picture: Any, target: Any, seed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if "none" in self.augment:
            return self._seen(picture, target)
        image, mask = self._whole(picture, target)
        random = np.random.default_rng(seed.astype(np.uint64))
        share, stretch, down, right, mirror = random.uniform(size=5)
        scale = SCALES[0] * (SCALES[1] / SCALES[0]) ** share
        stretch = STRETCH ** (stretch - 0.5)
        height, width = round(mask.shape[0] / scale * stretch), round(mask.shape[1] / scale / stretch)
        top, left = round((mask.shape[0] - height) * down), round((mask.shape[1] - width) * right)
        parts = []
        for values, outside, how in (
            (image, GREY, Image.Resampling.BILINEAR),
            (mask, IGNORE, Image.Resampling.NEAREST),
        ):
            cut = Image.new("RGB" if values.ndim == 3 else "L", (max(width, 1), max(height, 1)), outside)
            cut.paste(Image.fromarray(values), (-left, -top))
            part = np.asarray(cut.resize(self.image_size[::-1], how))
            parts.append(part[:, ::-1] if "crop_flip" in self.augment and mirror < 0.5 else part)
        return parts[0], parts[1]

    def _whole(self, picture: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
        image, mask = read_pixels(picture), self.legend.read(target)
        if image.shape[:2] != mask.shape:
            raise BrokenImage(f"A mask of {mask.shape} pixels belongs to a picture of {image.shape[:2]}")
        return image, mask
