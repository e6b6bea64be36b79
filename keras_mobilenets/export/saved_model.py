"""`export_saved_model`: the model as a folder for TensorFlow Serving, on float images and on JPEG bytes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mobilenets.export import conversion, parity
from keras_mobilenets.export.report import ServingReport
from keras_mobilenets.export.samples import Samples, random_values
from keras_mobilenets.export.signature import Signature, call
from keras_mobilenets.export.sizing import Sizing
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
    input_shape: tuple[int, ...] | Mapping[str, tuple[int, ...]] | None = None,
    normalization: str | tuple[Any, Any] | None = "auto",
    verify: Any = None,
    verbose: bool = True,
) -> ServingReport:
    """Writes a model as a SavedModel, ready for TensorFlow Serving.

    It has two signatures, both for any number of examples. `serve` takes what the Keras model takes, under the names
    that Keras has for it, and is also the default. `serve_jpeg`, for models of one image in colours or greys, takes the
    bytes of JPEG, PNG, BMP or GIF files, decodes them, takes the central 87.5 % (thumbnails up to 64 pixels stay
    whole), resizes with antialiasing and normalizes. EXIF orientation is ignored. The folder is loaded again and both
    are run beside the Keras model before it appears under its name.

    Args:
        model: a Keras model, or the path of a `.keras` or `.h5` file.
        path: of the folder. TensorFlow Serving expects it to be named by a version number: `models/flowers/1`. A
            SavedModel is replaced, a folder with anything else in it is refused.
        input_shape: as in `export_tflite`.
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

    >>> layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(2, 8), keras.layers.Flatten()]
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.Softmax()], name="cat_or_dog")
    >>> export_saved_model(model, "models/cat_or_dog/1", verbose=False).signatures
    {'serve': 'float32 ? x 8 x 8 x 3', 'serve_jpeg': 'string ?'}
    """
    conversion.require_tensorflow()
    path = user_path(path)
    output_path(path, foreign=foreign_files)
    model = conversion.load(model)
    signature = Signature.of(model, input_shape, Sizing(model).shapes)
    samples = Samples(model, signature, None, verify, normalization)
    scale = _jpeg_scale(model, signature, samples, normalization)
    signatures = {"serve": ", ".join(map(str, signature.inputs))}
    if len(signature.inputs) > 1:
        signatures["serve"] = ", ".join(f"{one.name}: {one}" for one in signature.inputs)
    if scale is not None:
        signatures["serve_jpeg"] = "string ?"
    with atomic_path(path, foreign=foreign_files) as folder:
        _write(model, folder, signature, scale)
        compared = _compare(model, folder, signature, samples, scale)
        size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    report = ServingReport(path, signatures, compared, size_bytes)
    if verbose:
        report.print()
    return report


def _jpeg_scale(model: keras.Model, signature: Signature, samples: Samples, normalization: Any) -> PixelScale | None:
    """What the model takes for a pixel, where encoded pictures are all that it needs; else None."""
    if normalization is None or len(signature.inputs) > 1 or not signature.inputs[0].is_image:
        return None
    if signature.inputs[0].shape[-1] not in (1, 3):  # no JPEG has other channels
        return None
    return samples.scales[0] or PixelScale.of(model)  # which raises, and says what to pass


def foreign_files(folder: Path) -> list[str]:
    """What a folder holds besides a SavedModel; everything, where there is none."""
    names = {one.name for one in folder.iterdir()}
    if "saved_model.pb" not in names:
        return sorted(names)
    inside = {f"{name}/{one.name}" for name in FOLDERS & names for one in (folder / name).iterdir()}
    return sorted(name for name in names | inside if not OWN.fullmatch(name))


def _write(model: keras.Model, folder: Path, signature: Signature, scale: PixelScale | None) -> None:
    import tensorflow as tf

    names = list(signature.outputs)

    def answers(arrays):
        found = call(model, arrays)
        return found[0] if len(names) == 1 else dict(zip(names, found, strict=True))

    archive = keras.export.ExportArchive()
    archive.track(model)
    specs = [tf.TensorSpec((None, *one.shape), one.dtype, name=one.name) for one in signature.inputs]
    archive.add_endpoint("serve", lambda *arrays: answers(arrays), specs)
    if scale is not None:
        decode = decoder(signature.image.example, scale)
        jpegs = tf.TensorSpec((None,), tf.string, name="jpegs")
        archive.add_endpoint("serve_jpeg", lambda jpegs: answers([decode(jpegs)]), [jpegs])
    archive.write_out(str(folder), verbose=False)


def decoder(shape: Sequence[int], scale: PixelScale) -> Callable[[Any], Any]:
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
        return scale(tf.map_fn(decode_one, contents, fn_output_signature=tf.TensorSpec(tuple(shape), tf.float32)))

    return decode


def _compare(
    model: keras.Model, folder: Path, signature: Signature, samples: Samples, scale: PixelScale | None
) -> parity.Parity:
    """Runs every signature of the folder beside the model."""
    import tensorflow as tf

    loaded, names = tf.saved_model.load(str(folder)), list(signature.outputs)

    def compared(answers: Any, arrays: list[Any]) -> parity.Parity:
        found = answers if len(names) > 1 else {names[0]: answers}
        expected = parity.predict(model, arrays, names)
        made = parity.measure(expected, {name: np.asarray(one) for name, one in found.items()}, samples.source)
        parity.require_equal(made)
        return made

    if scale is not None:
        contents = [tf.io.encode_png(one).numpy() for one in random_values(signature.image, 2)]
        decoded = decoder(signature.image.example, scale)(tf.constant(contents))
        compared(loaded.serve_jpeg(tf.constant(contents)), [decoded])
    given = [tf.constant(one, each.dtype) for one, each in zip(samples.verify, signature.inputs, strict=True)]
    return compared(loaded.serve(*given), samples.verify)
