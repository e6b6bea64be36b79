"""`export_saved_model`: the model as a folder for TensorFlow Serving, on float images and on JPEG bytes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mobilenets.export import conversion, parity
from keras_mobilenets.export.report import ServingReport
from keras_mobilenets.export.samples import Images
from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.utils import atomic_path, output_path, user_path

CROP_FRACTION = 0.875  # of the largest centred part with the model's proportions, as MobileNets are evaluated
FOLDERS = {"variables", "assets"}
OWN = re.compile(r"(saved_model|keras_metadata|fingerprint)\.pb|variables(/variables\.(index|data-\d+-of-\d+))?|assets")
EDGE_TO_EDGE = 64  # a smaller picture is a thumbnail that its object fills: not cropped


def export_saved_model(
    model: keras.Model | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    input_shape: tuple[int, int, int] | None = None,
    normalization: str | tuple[Any, Any] | None = "auto",
    verify: Any = None,
    verbose: bool = True,
) -> ServingReport:
    """Writes a model as a SavedModel, ready for TensorFlow Serving.

    It has two signatures, both for any number of images: `serve` takes float images as the Keras model does, and is
    also the default; `serve_jpeg` takes the bytes of JPEG, PNG, BMP or GIF files, decodes them, takes the central
    87.5 % (thumbnails up to 64 pixels stay whole), resizes with antialiasing and normalizes. EXIF orientation is
    ignored. The folder is loaded again and run beside the Keras model before it appears under its name.

    Args:
        model: a Keras model with one image input, or the path of a `.keras` file.
        path: of the folder. TensorFlow Serving expects it to be named by a version number: `models/flowers/1`. A
            SavedModel is replaced, a folder with anything else in it is refused.
        input_shape: (height, width, channels), for a model that takes images of any size.
        normalization: from pixels to what the model takes, as in `export_tflite`; None leaves `serve_jpeg` out.
        verify: images as the model takes them, in whatever `fit` takes; seeded random ones by default.
        verbose: print the report as a table.

    Returns:
        A `ServingReport`.

    Raises:
        FileNotFoundError: the model file does not exist.
        ValueError: an argument does not fit.
        RuntimeError: Keras does not run on TensorFlow, or the folder does not answer as the model does.
        OSError: the folder cannot be written, or holds something else than a SavedModel.

    Example:

    >>> layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 8), keras.layers.Flatten(), keras.layers.Softmax()]
    >>> model = keras.Sequential(layers, name="cat_or_dog")
    >>> export_saved_model(model, "models/cat_or_dog/1", verbose=False).signatures
    {'serve': 'float32 ? x 8 x 8 x 3', 'serve_jpeg': 'string ?'}
    """
    conversion.require_tensorflow()
    path = user_path(path)
    output_path(path, foreign=foreign_files)
    model = conversion.load(model)
    shape = conversion.image_shape(model, input_shape)
    images = Images(model, None, verify, shape, normalization)
    scale = images.scale
    if scale is None and normalization is not None:
        scale = PixelScale.of(model)  # raises, and says what to pass
    signatures = {"serve": "float32 ? x " + " x ".join(map(str, shape))}
    if scale is not None:
        signatures["serve_jpeg"] = "string ?"
    with atomic_path(path, foreign=foreign_files) as folder:
        _write(model, folder, shape, scale)
        compared = _compare(model, folder, images)
        size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    report = ServingReport(path, signatures, compared, size_bytes)
    if verbose:
        report.print()
    return report


def foreign_files(folder: Path) -> list[str]:
    """What a folder holds besides a SavedModel; everything, where there is none."""
    names = {one.name for one in folder.iterdir()}
    if "saved_model.pb" not in names:
        return sorted(names)
    inside = {f"{name}/{one.name}" for name in FOLDERS & names for one in (folder / name).iterdir()}
    return sorted(name for name in names | inside if not OWN.fullmatch(name))


def _write(model: keras.Model, folder: Path, shape: tuple[int, int, int], scale: PixelScale | None) -> None:
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    archive.track(model)
    images = tf.TensorSpec((None, *shape), tf.float32, name="images")
    archive.add_endpoint("serve", lambda images: model(images, training=False), [images])
    if scale is not None:
        decode = decoder(shape, scale)
        jpegs = tf.TensorSpec((None,), tf.string, name="jpegs")
        archive.add_endpoint("serve_jpeg", lambda jpegs: model(decode(jpegs), training=False), [jpegs])
    archive.write_out(str(folder), verbose=False)


def decoder(shape: tuple[int, int, int], scale: PixelScale) -> Callable[[Any], Any]:
    """A TensorFlow function from a batch of image files to what the model takes."""
    import tensorflow as tf

    height, width, channels = shape

    def decode_one(content):
        image = tf.io.decode_image(content, channels=channels, expand_animations=False)
        size = tf.cast(tf.shape(image)[:2], tf.float32)
        fraction = tf.where(tf.reduce_min(size) > EDGE_TO_EDGE, CROP_FRACTION, 1.0)
        whole = tf.minimum(size, size[::-1] * (height / width, width / height))  # largest with these proportions
        crop = tf.maximum(tf.cast(tf.round(whole * fraction), tf.int32), 1)
        start = (tf.shape(image)[:2] - crop) // 2
        image = tf.slice(image, tf.concat([start, [0]], 0), tf.concat([crop, [channels]], 0))
        image = tf.image.resize(image, (height, width), antialias=True)
        return tf.clip_by_value(tf.round(image), 0.0, 255.0)  # to whole pixels, as it was trained on

    def decode(contents):
        return scale(tf.map_fn(decode_one, contents, fn_output_signature=tf.TensorSpec(shape, tf.float32)))

    return decode


def _compare(model: keras.Model, folder: Path, images: Images) -> parity.Parity:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    expected = parity.predict(model, images.verify)
    answers = [np.asarray(one) for one in parity.as_list(loaded.serve(tf.constant(images.verify, tf.float32)))]
    found = parity.measure(expected, answers, images.source)
    parity.require_equal(found)
    return found
