"""Each model of the table quantizes, answers alike, and becomes a file; what stays in float is named, the rest refused.

tfmot 0.8.1 on Keras 2 takes 135 of the 159 models of its own tests.
"""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L
from tfmot_models import (
    APPLICATIONS,
    FLOAT,
    IMAGE,
    MODELS,
    PARTLY_FLOAT,
    VOLUME,
    application,
    batch_norm,
    between,
    stack,
    texts,
)

from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.quantization import InputQuant, calibrate, deployable, quantize_model
from keras_mobilenets.tflite import audit


def randomized(model):
    """Weights as after training: fresh statistics and biases are 0 and 1, and would hide what is lost of them."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.dtype.startswith("float"):
            positive = any(part in weight.path for part in ("variance", "gamma"))
            fan_in = max(1, np.prod(weight.shape[:-1]))
            spread = 1.0 / np.sqrt(fan_in) if len(weight.shape) > 1 else 0.2
            weight.assign(rng.uniform(0.6, 1.4, weight.shape) if positive else rng.normal(0, spread, weight.shape))
    return model


def values_for(model, count=8):
    rng = np.random.default_rng(1)
    given = [
        rng.integers(0, 10, (count, *one.shape[1:])).astype("int32")
        if "int" in one.dtype
        else rng.uniform(-1, 1, (count, *one.shape[1:])).astype("float32")
        for one in model.inputs
    ]
    return given if len(given) > 1 else given[0]


def answers(model, values):
    return [keras.ops.convert_to_numpy(one) for one in keras.tree.flatten(model(values))]


def quantized_like(model):
    """The calibrated twin, and what both answer."""
    randomized(model)
    values = values_for(model)
    quantized = quantize_model(model)
    calibrate(quantized, values, batch_size=4)
    expected, found = answers(model, values), answers(quantized, values)
    for one, other in zip(expected, found, strict=True):
        if one.dtype.kind == "f":
            # Rounding to 8 bits in up to a dozen places: some hundredths of the spread of the outputs.
            assert np.abs(one - other).mean() < 0.15 * one.std() + 1 / 256, np.abs(one - other).mean() / one.std()
        else:
            assert np.mean(one == other) > 0.7
    return quantized, values, found


def run_file(quantized, values):
    """The outputs of the int8 file that TensorFlow's converter makes, image by image."""
    shifts = {layer.name: layer.shift for layer in quantized.layers if isinstance(layer, InputQuant)}
    values = [
        one - np.float32(shifts.get(f"{given.name}_quant", 0.0)) if shifts else one
        for given, one in zip(quantized.inputs, keras.tree.flatten(values), strict=True)
    ]
    deployed = deployable(quantized)
    signature = [tf.TensorSpec((1, *one.shape[1:]), one.dtype) for one in deployed.inputs]
    constants = [(variable, tf.constant(variable)) for variable in deployed.variables]

    @tf.function
    def function(*given):
        with keras.StatelessScope(state_mapping=constants):
            return keras.tree.flatten(deployed(list(given) if len(given) > 1 else given[0], training=False))

    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function(*signature)], deployed)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    content = converter.convert()
    runner = tf.lite.Interpreter(model_content=content)
    runner.allocate_tensors()
    inputs = sorted(runner.get_input_details(), key=lambda detail: detail["name"])
    outputs = []
    for index in range(len(values[0])):
        for detail, one in zip(inputs, values, strict=True):
            runner.set_tensor(detail["index"], one[index : index + 1])
        runner.invoke()
        outputs.append([runner.get_tensor(detail["index"]) for detail in runner.get_output_details()])
    return content, [np.concatenate(parts) for parts in zip(*outputs, strict=True)]


def same(found, answered):
    """Whether a file answers as the twin: by shape, as a converter gives the outputs in an order of its own."""
    for one in found:
        alike = [other for other in answered if other.shape == one.shape]
        # A step of the output and what rounding to the other side does in the layers before: a twentieth of its range.
        assert any(np.abs(one - other).max() <= 0.05 * np.ptp(one) + 1e-6 for other in alike), [
            np.abs(one - other).max() / np.ptp(one) for other in alike
        ]


OFTEN = [name for place, name in enumerate(MODELS) if " on " not in name and (" between" not in name or place % 3 == 0)]
OFTEN.append("MaxPooling2D(2) on (8, 8, 4)")  # nothing but values that move


@pytest.mark.filterwarnings("error:Of model")  # a layer that stays in float is named by a warning
@pytest.mark.parametrize("name", OFTEN)
def test_it_quantizes_and_answers_alike(name):
    quantized, _, _ = quantized_like(MODELS[name]())
    assert quantized.float_layers == ()


@pytest.mark.slow
@pytest.mark.filterwarnings("error:Of model")
@pytest.mark.parametrize("name", MODELS)
def test_its_file_is_integer_and_answers_as_the_twin(name):
    quantized, values, found = quantized_like(MODELS[name]())
    content, answered = run_file(quantized, values)
    same(found, answered)
    floats = [one for one in audit(content).float_operations if not one.startswith(("QUANTIZE", "DEQUANTIZE"))]
    assert floats == []


@pytest.mark.parametrize(("shape", "text"), texts(FLOAT))
def test_what_has_no_integer_form_stays_in_float_and_is_named(shape, text):
    model = between(shape, text)
    layer = model.layers[1]
    with pytest.warns(UserWarning, match=rf"stay in float.*'{layer.name}'"):
        quantized, _, _ = quantized_like(model)
    assert quantized.float_layers == (layer.name,)


@pytest.mark.parametrize("name", PARTLY_FLOAT)
def test_models_that_are_partly_float(name):
    make, floats = PARTLY_FLOAT[name]
    with pytest.warns(UserWarning, match="stay in float"):
        quantized, _, _ = quantized_like(make())
    assert [name.split("_")[0] for name in quantized.float_layers] == floats


AROUND_FLOAT = {
    **{text: lambda shape=shape, text=text: between(shape, text) for shape, text in texts(FLOAT)},
    **{name: make for name, (make, _) in PARTLY_FLOAT.items()},
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Of model")
@pytest.mark.parametrize("name", AROUND_FLOAT)
def test_files_around_float_answer_as_the_twin(name):
    quantized, values, found = quantized_like(AROUND_FLOAT[name]())
    same(found, run_file(quantized, values)[1])


def test_float_is_float_and_a_named_layer_is_not_warned_of():
    """Without a border the converter made an integer maximum of it, on the grid of one of its inputs."""
    inputs = keras.Input(IMAGE)
    small, big = L.Conv2D(4, 1, name="small")(inputs), L.Rescaling(50.0)(L.Conv2D(4, 1)(inputs))
    model = randomized(keras.Model(inputs, L.Maximum(name="m")([small, big])))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantized = quantize_model(model, skip=["m"])
    values = values_for(model)
    calibrate(quantized, values)
    content, answered = run_file(quantized, values)
    same(answers(quantized, values), answered)
    assert any(one.startswith("MAXIMUM") for one in audit(content).float_operations)


@pytest.mark.parametrize("layer", [L.Dense(3, activation="gelu", name="d"), L.Dense(3, activation="elu", name="d")])
def test_skip_takes_the_activation_along(layer):
    quantized = quantize_model(stack(L.Flatten(), layer, L.Dense(2)), skip=["d"])
    assert quantized.float_layers == ("d", f"d_{layer.activation.__name__}")


@keras.saving.register_keras_serializable("tests")
class NoConfig(L.Layer):
    def __init__(self, units):
        super().__init__()
        self.inner = L.Dense(units)

    def call(self, inputs):
        return self.inner(inputs)


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


REFUSED = {
    "nothing but float": (lambda: stack(L.Conv3D(2, 1), shape=VOLUME), "nothing to quantize.*quantize=None"),
    "another axis": (lambda: stack(L.Conv2D(8, 1), batch_norm(axis=1)), "axis -1. Build them so, or .*skip="),
    "channels first": (lambda: stack(L.ZeroPadding2D(data_format="channels_first")), "channels last"),
    "no config": (lambda: stack(L.Dense(4), NoConfig(3), shape=(6,)), "cannot be copied: its `get_config`"),
    "subclassed": (Subclassed, "functional or sequential"),
    "unbuilt": (lambda: keras.Sequential([L.Dense(2)]), "keras.Input"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore:Of model")
def test_the_rest_is_refused_in_one_sentence(name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as caught:
        quantize_model(make())
    assert len(str(caught.value)) < 400


@pytest.mark.slow
@pytest.mark.filterwarnings("error:Of model")
@pytest.mark.parametrize("name", APPLICATIONS)
def test_keras_applications(name):
    model = application(name, **APPLICATIONS[name])
    scale = PixelScale.known(model)
    low, high = scale.range if scale else (-1, 1)
    values = (values_for(model, 2) + 1) / 2 * (high - low) + low
    model(values, training=True)  # statistics, or signals fade
    quantized = quantize_model(model)
    assert quantized.float_layers == ()
    calibrate(quantized, values)
    # Untrained networks of up to 240 layers give nearly the same for all images: only that all of it is computed.
    quantized.exact = False  # which is another test, and takes as long
    assert np.isfinite(answers(quantized, values)[0]).all()
    deployable(quantized)


def test_there_are_as_many_as_tfmot_has():
    """Rows, not passes: whether a row answers alike is its own test above, its file's a slow one."""
    integer, partly, refused = len(MODELS) + len(APPLICATIONS), len(AROUND_FLOAT), len(REFUSED)
    print(f"{integer} wholly integer, {partly} partly float, {refused} refused, {integer + partly + refused} in all")
    assert integer >= 159 - 9
