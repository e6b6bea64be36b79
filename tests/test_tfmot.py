"""The bridge to Keras 2, tested against tfmot itself: the twin answers alike, tfmot takes it, its weights come back."""

import importlib
import re
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from documents import run

tfmot = pytest.importorskip("tensorflow_model_optimization")
tf_keras = pytest.importorskip("tf_keras")

from keras_mobilenets import (  # noqa: E402 - some of it cannot be imported without
    HardSigmoid,
    InvertedResidual,
    MobileNet,
    MobileNetV2,
    MobileNetV3Small,
    export_tflite,
    inline,
    quantize_model,
)
from keras_mobilenets.interop import from_tf_keras, tfmot_annotate, to_tf_keras  # noqa: E402
from keras_mobilenets.quantization import KeepZeros  # noqa: E402
from keras_mobilenets.tflite import audit  # noqa: E402

pytestmark = pytest.mark.needs("tensorflow_model_optimization")

SMALL = {"input_shape": (32, 32, 3), "weights": None, "classes": 5}
SPARSITY = 0.75
CLUSTERS = 8


def randomize(model):
    """Statistics and biases as after training: fresh ones are 0 and 1, and would hide a swap."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "kernel" not in weight.name:
            low, high = (0.7, 1.4) if weight.name in ("gamma", "moving_variance") else (-0.3, 0.3)
            weight.assign(rng.uniform(low, high, weight.shape))
    return model


def transfer_model():
    base = MobileNetV2(input_shape=(32, 32, 3), alpha=0.35, include_top=False, weights=None)
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.RandomFlip("horizontal")(inputs)
    x = base(keras.layers.Rescaling(1 / 127.5, -1.0)(x), training=False)
    x = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, keras.layers.Dense(5, activation="softmax")(x))


def written_out():
    """Operations on tensors, activations as arguments, a layer used twice, two inputs and two outputs."""
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
    shared = keras.layers.Conv2D(4, 3, activation="relu6", kernel_regularizer="l2")
    x, y = shared(left), shared(right)
    gate = keras.layers.ReLU(6.0)(y + 3.0) * (1.0 / 6.0)
    x = keras.layers.SeparableConv2D(6, 3, activation="hard_swish")(keras.ops.relu(x * gate - 0.1))
    x = keras.layers.Activation("hard_sigmoid")(keras.layers.Dense(6, activation="silu")(x))
    return keras.Model({"left": left, "right": right}, [x, keras.layers.PReLU()(y)])


def small():
    """What MobileNetV3 is made of, in a tenth of its layers: tfmot takes half a minute for the whole."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.RandomFlip("horizontal")(inputs)
    x = keras.layers.Conv2D(8, 3, strides=4)(keras.layers.Rescaling(1 / 127.5, -1.0)(x))
    x = InvertedResidual(8, 2, se_ratio=0.25, activation="hard_swish", name="block")(x)
    x = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = keras.layers.Conv2D(5, 1)(keras.layers.Dropout(0.2)(x))
    return keras.Model(inputs, keras.layers.Activation("softmax")(keras.layers.Flatten()(x)))


MODELS = {
    "small": small,
    "MobileNet": lambda: MobileNet(alpha=0.25, **SMALL),
    "quantization-friendly": lambda: MobileNet(alpha=0.25, quantization_friendly=True, **SMALL),
    "MobileNetV2": lambda: MobileNetV2(alpha=0.35, **SMALL),
    "MobileNetV3Small": lambda: MobileNetV3Small(alpha=0.35, **SMALL),
    "minimalistic": lambda: MobileNetV3Small(alpha=0.35, minimalistic=True, **SMALL),
    "keras.applications": lambda: keras.applications.MobileNetV3Small(**SMALL),
    "transfer": transfer_model,
    "written out": written_out,
}


def batch(model, rng):
    """Inputs in the model's structure, pixels for all that is not an elementary test model."""
    return keras.tree.map_structure(
        lambda tensor: rng.uniform(0, 255, (4, *tensor.shape[1:])).astype("float32"), model.input
    )


@pytest.mark.parametrize("name", MODELS)
def test_twin_gives_the_same_answers_and_weights_come_back(name, rng):
    model = randomize(MODELS[name]())
    twin = to_tf_keras(model)
    x = batch(model, rng)
    expected = keras.tree.map_structure(np.asarray, model(x, training=False))
    # `training` is said because Keras' augmentation, left alone, believes that it is training.
    # The same kernels in the same order; what is left is one rounding in another order of hard-swish's factors.
    for ours, theirs in zip(keras.tree.flatten(expected), keras.tree.flatten(twin(x, training=False)), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-5)
    for weight in model.weights:
        weight.assign(keras.ops.zeros_like(weight))
    from_tf_keras(twin, model)
    for ours, theirs in zip(keras.tree.flatten(expected), keras.tree.flatten(model(x, training=False)), strict=True):
        np.testing.assert_array_equal(theirs, ours)


def test_twin_has_regularizers_and_what_is_frozen(rng):
    model = transfer_model()
    model.get_layer("mobilenetv2_0.35_32").trainable = False
    assert len(to_tf_keras(model).trainable_weights) == len(model.trainable_weights) == 2
    x = batch(written_out(), rng)
    twin = to_tf_keras(written_out())
    twin(x)
    assert len(twin.losses) == 1


def test_twin_is_saved_and_loaded(model, tmp_path, rng):
    twin = to_tf_keras(model)
    twin.save(tmp_path / "twin.keras")
    x = rng.uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(tf_keras.models.load_model(tmp_path / "twin.keras").predict(x), twin.predict(x))


class Own(keras.layers.Layer):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Own(name="mine"), "Layer 'mine' (Own) has no twin"),
        (keras.ops.cumsum, "(Cumsum) has no twin"),
        (keras.layers.Dense(3, activation="log_softmax", name="last"), "Layer 'last' has the activation 'log_softmax'"),
    ],
)
def test_what_has_no_twin_is_named(layer, message):
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match=re.escape(message)):
        to_tf_keras(keras.Model(inputs, layer(inputs)))


def dense_model(*units):
    return keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(n, name=f"dense_{n}") for n in units)])


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ((3,), "only in `model`: ['dense_2']; only in `twin`: []"),
        ((3, 2, 1), "only in `model`: []; only in `twin`: ['dense_1']"),
        ((5, 3, 2), "only in `twin`: ['dense_5']"),
    ],
)
def test_another_models_weights_are_refused(units, message):
    model = dense_model(3, 2)
    with pytest.raises(ValueError, match=re.escape(message)):
        from_tf_keras(to_tf_keras(dense_model(*units)), model)


def test_weights_of_other_shapes_are_refused_before_any_is_set():
    model = dense_model(3, 2)
    before = model.get_weights()
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="dense_3"), keras.layers.Flatten()])
    other.add(keras.layers.Reshape((1, 3)))
    other.add(keras.layers.Dense(2, use_bias=False, name="dense_2"))
    with pytest.raises(ValueError, match=re.escape("Layer 'dense_2' of `model` has a weight 'bias' of shape (2,)")):
        from_tf_keras(to_tf_keras(other), model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    monkeypatch.delitem(sys.modules, "keras_mobilenets.interop.tfmot.layers")
    with pytest.raises(ImportError, match=re.escape("pip install 'keras_mobilenets[tfmot]'")):
        importlib.import_module("keras_mobilenets.interop.tfmot.layers")


@pytest.fixture
def pictures(rng):
    return rng.uniform(0, 255, (8, 32, 32, 3)).astype("float32"), np.arange(8) % 5


@pytest.mark.parametrize("name", ["small", pytest.param("MobileNetV3Small", marks=pytest.mark.slow)])
def test_tfmot_trains_and_converts_what_it_refused(name, pictures, tmp_path):
    model = MODELS[name]()
    before = model.get_weights()
    theirs = tfmot.quantization.keras.quantize_apply(tfmot_annotate(to_tf_keras(model)))
    theirs.compile("sgd", "sparse_categorical_crossentropy")
    theirs.fit(*pictures, verbose=0)
    converter = tf.lite.TFLiteConverter.from_keras_model(theirs)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    (tmp_path / "theirs.tflite").write_bytes(converter.convert())
    assert audit(tmp_path / "theirs.tflite").is_integer
    from_tf_keras(theirs, model)
    kernels = [weight.name.endswith("kernel") for weight in model.weights]
    moved = [bool((old != new).any()) for old, new in zip(before, model.get_weights(), strict=True)]
    assert all(has_moved for is_kernel, has_moved in zip(kernels, moved, strict=True) if is_kernel)


def test_quantized_by_tfmot_hard_sigmoid_stays_in_its_range(rng):
    inputs = keras.Input((4,))
    twin = to_tf_keras(keras.Model(inputs, HardSigmoid()(inputs)))
    theirs = tfmot.quantization.keras.quantize_apply(tfmot_annotate(twin))
    x = rng.uniform(-6, 6, (64, 4)).astype("float32")
    theirs(x, training=True)
    # Rounded three times: the input to steps of 12/255, the sum to 6/255, the result to 1/255.
    np.testing.assert_allclose(theirs(x), twin(x), atol=(12 / 6 + 6 / 6 + 1) / 2 / 255)


def prune(model):
    """The twin in tfmot's wrappers, after three steps."""
    schedule = tfmot.sparsity.keras.ConstantSparsity(SPARSITY, begin_step=0, frequency=1)
    twin = tfmot.sparsity.keras.prune_low_magnitude(to_tf_keras(model), pruning_schedule=schedule)
    twin.compile("sgd", "sparse_categorical_crossentropy")
    x = np.random.default_rng(0).uniform(0, 255, (24, 32, 32, 3)).astype("float32")
    twin.fit(x, np.arange(24) % 5, batch_size=8, verbose=0, callbacks=[tfmot.sparsity.keras.UpdatePruningStep()])
    return twin


@pytest.fixture
def model():
    return MODELS["small"]()


def prunable(model):
    layers = (layer for layer in inline(model).layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense))
    return [layer.kernel.numpy() for layer in layers if not isinstance(layer, keras.layers.DepthwiseConv2D)]


def test_pruned_weights_come_back(model):
    twin = prune(model)
    for strip in (lambda twin: twin, tfmot.sparsity.keras.strip_pruning):
        model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
        from_tf_keras(strip(twin), model)
        for kernel in prunable(model):  # tfmot rounds to whole weights
            assert np.mean(kernel == 0) == pytest.approx(SPARSITY, abs=1 / kernel.size)


def test_zeros_are_kept_through_quantization_aware_training(model, pictures, tmp_path):
    from_tf_keras(prune(model), model)
    zeros = [kernel == 0 for kernel in prunable(model)]
    quantized = quantize_model(model)
    quantized.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")

    def kept():
        return [bool((kernel[zero] == 0).all()) for kernel, zero in zip(prunable(quantized), zeros, strict=True)]

    quantized.fit(*pictures, epochs=2, verbose=0, callbacks=[KeepZeros()])
    assert all(kept())
    export_tflite(quantized, tmp_path / "model.tflite", verify=pictures[0], verbose=False)
    quantized.fit(*pictures, verbose=0)  # as without the callback: it left nothing behind
    assert not any(kept())


def test_clustered_weights_come_back(model, pictures):
    linear = tfmot.clustering.keras.CentroidInitialization.LINEAR
    twin = tfmot.clustering.keras.cluster_weights(to_tf_keras(model), CLUSTERS, linear)
    twin.compile("sgd", "sparse_categorical_crossentropy")
    twin.fit(*pictures, verbose=0)
    with pytest.raises(ValueError, match="strip_clustering"):
        from_tf_keras(twin, model)
    from_tf_keras(tfmot.clustering.keras.strip_clustering(twin), model)
    assert all(len(np.unique(kernel)) <= CLUSTERS for kernel in prunable(model))


@pytest.mark.slow
def test_migration_guide_runs(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels, labels = pictures
    assert run("docs/migrating-from-tfmot.md", {"images": pixels / 127.5 - 1, "labels": labels}) == 5
