"""The same function in Keras' own layers: equal, and loaded by a process that cannot import this package."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers as L

import keras_mobilenets
from keras_mobilenets import InvertedResidual, plain, quantize_model

LOAD = """
import sys
sys.modules["keras_mobilenets"] = None  # any import of it fails
import keras, numpy as np
images = np.load(sys.argv[1])
np.savez(sys.argv[2], *[keras.models.load_model(path)(images) for path in sys.argv[3:]])
"""


@pytest.mark.parametrize(
    "names",
    [
        ["MobileNetV3Small"],
        pytest.param(["MobileNet", "MobileNetV2", "MobileNetV4HybridMedium"], marks=pytest.mark.slow),
    ],
    ids=len,
)
def test_equals_the_model_and_loads_without_this_package(names, tmp_path, rng):
    images = rng.uniform(-1, 1, (2, 64, 64, 3)).astype("float32")
    np.save(tmp_path / "images.npy", images)
    paths, expected = [], []
    options = {"weights": None, "classes": 5, "alpha": 0.25}
    for name in names:
        model = getattr(keras_mobilenets.applications, name)((64, 64, 3), **options)
        for weight in model.weights:
            weight.assign(weight + rng.uniform(0, 0.05, weight.shape))
        expected.append(model(images))
        paths.append(tmp_path / f"{name}.keras")
        same = plain(model)
        assert same.count_params() == model.count_params()
        same.save(paths[-1])
    run = [sys.executable, "-c", LOAD, tmp_path / "images.npy", tmp_path / "answers.npz", *paths]
    subprocess.run(list(map(str, run)), check=True, capture_output=True, text=True)
    with np.load(tmp_path / "answers.npz") as answers:
        for one, another in zip(expected, answers.values(), strict=True):
            # Probabilities; the folded normalization rounds in another place.
            np.testing.assert_allclose(one, another, atol=1e-5)


def test_what_layers_were_given_is_kept():
    constraint = keras.constraints.MaxNorm(0.5)
    inputs = keras.Input((8, 8, 3))
    x = keras_mobilenets.Conv2D(4, 1, kernel_constraint=constraint, dtype="mixed_float16", name="kept")(inputs)
    block = InvertedResidual(4, kernel_regularizer=keras.regularizers.L2(0.1), trainable=False, name="block")
    same = plain(keras.Model(inputs, block(x)))
    assert same.get_layer("kept").kernel_constraint.max_value == 0.5
    assert same.get_layer("kept").compute_dtype == "float16"
    assert same.get_layer("block_expand").kernel_regularizer.l2 == pytest.approx(0.1)
    assert not same.get_layer("block_expand").trainable


def test_of_a_quantized_model_is_refused():
    model = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(2, 3)])
    with pytest.raises(ValueError, match=r"has no counterpart.*`strip_quantization`"):
        plain(quantize_model(model))
