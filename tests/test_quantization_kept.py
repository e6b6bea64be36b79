"""What a quantized model keeps of the float one: names of outputs, constraints, regularizers; and what is refused."""

import keras
import numpy as np
import pytest
from keras import layers as L

from keras_mobilenets.quantization import QuantizedModel, calibrate, deployable, quantize_model, strip_quantization
from keras_mobilenets.quantization.operations import Operation

IMAGES = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 3)).astype("float32")


def of_image(make):
    image = keras.Input((8, 8, 3), name="image")
    return keras.Model(image, make(image))


def two_heads(as_dict):
    def make(x):
        x = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="relu")(x))
        heads = {"label": L.Dense(2, activation="softmax", name="scores")(x), "box": L.Dense(4, name="corners")(x)}
        return heads if as_dict else list(heads.values())

    return of_image(make)


@pytest.mark.parametrize("as_dict", [True, False])
def test_outputs_keep_their_names_and_structure(tmp_path, as_dict):
    model = two_heads(as_dict)
    quantized = quantize_model(model)
    calibrate(quantized, IMAGES)
    quantized.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for other in (
        quantized,
        loaded,
        keras.models.clone_model(quantized),
        deployable(loaded),
        strip_quantization(loaded),
    ):
        assert other.output_names == model.output_names
        keras.tree.assert_same_structure(model.output, other.output)
    losses = (
        {"label": "sparse_categorical_crossentropy", "box": "mse"} if as_dict else {"scores": "mse", "corners": "mse"}
    )
    loaded.compile("sgd", losses)


def test_constraints_and_regularizers_are_kept():
    kept = {"bias_constraint": "non_neg", "bias_regularizer": "l2", "activity_regularizer": "l1"}
    separable = {"depthwise_constraint": "max_norm", "pointwise_constraint": "unit_norm", **kept}

    def make(x):
        x = L.SeparableConv2D(4, 3, activation="relu", name="separable", **separable)(x)
        return L.Conv2D(4, 3, kernel_constraint="max_norm", name="conv", **kept)(x)

    model = of_image(make)
    quantized = quantize_model(model)
    depthwise, pointwise, conv = (quantized.get_layer(name) for name in ("separable_depthwise", "separable", "conv"))
    assert isinstance(depthwise.depthwise_constraint, keras.constraints.MaxNorm)
    assert isinstance(pointwise.kernel_constraint, keras.constraints.UnitNorm)
    assert isinstance(conv.kernel.constraint, keras.constraints.MaxNorm)
    assert all(isinstance(layer.bias.constraint, keras.constraints.NonNeg) for layer in (pointwise, conv))
    losses = []
    for one in (model, quantized):
        one(IMAGES)
        losses.append(float(sum(one.losses)))
    np.testing.assert_allclose(*losses, rtol=0.02)  # kernels and pixels are rounded


@pytest.mark.parametrize("axis", [1, 2])
def test_a_normalization_of_another_axis_is_not_folded(axis):
    def make(x):
        return L.ReLU()(L.BatchNormalization(axis=axis, name="norm", momentum=0.0)(L.Conv2D(8, 3, padding="same")(x)))

    model = of_image(make)
    model(IMAGES, training=True)
    with pytest.raises(ValueError, match=r"\['norm'\].*normalize over axis -1"):
        quantize_model(model)
    quantized = quantize_model(model, skip=["norm"])
    calibrate(quantized, IMAGES)
    assert "norm" in quantized.float_layers
    expected = np.asarray(model(IMAGES))
    assert np.abs(deployable(quantized)(IMAGES) - expected).max() < 0.05 * expected.max()


@pytest.mark.parametrize("late", [False, True])
def test_what_lora_learned_is_in_the_kernel(late):
    model = of_image(lambda x: L.Dense(4, name="low")(L.Conv2D(4, 1, name="rank")(x)))
    tuned = quantize_model(model) if late else model
    for name in ("low", "rank"):
        layer = tuned.get_layer(name)
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(np.random.default_rng(0).normal(0, 1, layer.lora_kernel_b.shape))
    quantized = tuned if late else quantize_model(tuned)
    calibrate(quantized, IMAGES)
    expected = np.asarray(strip_quantization(quantized)(IMAGES))
    if not late:
        np.testing.assert_allclose(expected, model(IMAGES), atol=1e-5)  # sums in another order
    assert np.abs(deployable(quantized)(IMAGES) - expected).max() < 0.05 * np.ptp(expected)  # 8 bits, three times


def with_integers():
    model = of_image(lambda x: L.Dense(4, name="dense")(x))
    model.quantize("int8")
    return model


def with_wrapped_integers():
    model = of_image(lambda x: L.TimeDistributed(L.Dense(4), name="wrapped")(x))
    model.get_layer("wrapped").layer.quantize("int8")
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (with_wrapped_integers, "'wrapped' has integer weights"),
        (with_integers, "'dense' has integer weights from Keras' own quantize"),
        (lambda: of_image(L.BatchNormalization(renorm=True, name="norm")), r"'norm' is a BatchNorm.*renorm=True"),
        (lambda: of_image(L.SpatialDropout2D(0.2)), "nothing to quantize: no layer of it computes"),
        (lambda: L.Dense(2), "must be a functional or sequential Keras model"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        quantize_model(make())


def test_operations_are_kept():
    def make(x):
        x = L.Conv2D(4, 3, use_bias=False, name="a")(x)
        x = L.ReLU(name="a_relu")(L.BatchNormalization(name="a_norm")(x))
        x = L.Activation("hard_swish", name="swish")(L.Conv2D(4, 1, name="b")(x))
        return L.Dense(2, name="c")(L.GlobalAveragePooling2D(name="pool")(x))

    quantized = quantize_model(of_image(make))
    assert isinstance(quantized, QuantizedModel)
    found: dict[str, Operation] = {one.name: one for one in quantized.integer_operations}
    assert list(found) == ["image", "a", "b", "swish", "pool", "c"]
    assert [node.name for node in found["a"].nodes] == ["a", "a_norm", "a_relu", "a_relu_quant"]
    assert found["a"].norm.name == "a_norm" and found["a"].quantizer is found["a"].end
    assert [one.factor for one in found.values()] == [1, 1, 1, 6, 6, 1]  # the sixth of hard-swish is in the last kernel
