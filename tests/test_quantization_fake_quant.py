"""Fake quantization against TensorFlow's operations, NumPy, and the definitions in the papers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_mobilenets.quantization import (
    FakeQuant,
    InputQuant,
    LeastError,
    MinMax,
    MovingAverage,
    Percentile,
    fake_quant,
    fake_quant_kernel,
)
from keras_mobilenets.quantization.grid import fake_quant_of_operations, nudge

RANGES = [(-1.3, 2.7), (0.0, 6.0), (-0.01, 5.0), (-4.0, 0.0), (-1e-3, 1e-3)]


@pytest.mark.parametrize("ends", RANGES)
def test_elementwise_form_equals_tensorflow_at_16_bits(rng, ends):
    values = rng.normal(scale=2 * max(map(abs, ends)), size=5000).astype("float32")
    expected = tf.quantization.fake_quant_with_min_max_vars(values, *ends, num_bits=16)
    # float32 holds 2**8 values within a step of 16 bits: about one value in 1000 lies so near to the middle of a step
    # that the order of operations decides.
    steps = np.abs(fake_quant_of_operations(values, *ends, 16) - expected) / ((ends[1] - ends[0]) / 65535)
    assert steps.max() < 1.5
    assert (steps > 0.5).mean() < 2e-3


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("ends", RANGES)
def test_elementwise_form_equals_tensorflow_to_the_bit(rng, ends, bits):
    values = rng.normal(scale=2 * max(map(abs, ends)), size=5000).astype("float32")
    expected = tf.quantization.fake_quant_with_min_max_vars(values, *ends, num_bits=bits)
    np.testing.assert_array_equal(fake_quant_of_operations(values, *ends, bits), expected)
    np.testing.assert_array_equal(fake_quant(values, *ends, bits), expected)


@pytest.mark.parametrize("ends", RANGES)
def test_gradient_is_one_inside_the_range_and_zero_outside(rng, ends):
    values = tf.constant(rng.normal(scale=2 * max(map(abs, ends)), size=1000).astype("float32"))
    upstream = rng.normal(size=1000).astype("float32")
    low, high, *_ = (np.asarray(end) for end in nudge(*ends, 8))
    expected = upstream * ((values.numpy() >= low) & (values.numpy() <= high))
    for form in fake_quant, fake_quant_of_operations:
        with tf.GradientTape() as tape:
            tape.watch(values)
            rounded = form(values, *ends)
        np.testing.assert_array_equal(tape.gradient(rounded, values, upstream), expected)


def test_zero_is_on_every_grid(rng):
    for low, high in -rng.exponential(size=(50, 2)) * [1, -1]:
        assert fake_quant(np.zeros(1, "float32"), low, high)[0] == 0.0


@pytest.mark.parametrize(("shape", "axes"), [((3, 3, 8, 16), (0, 1, 2)), ((3, 3, 8, 2), (0, 1)), ((64, 10), (0,))])
@pytest.mark.parametrize("bits", [4, 8])
def test_kernel_is_symmetric_per_channel_and_straight_through(rng, shape, axes, bits):
    kernel = tf.constant(rng.normal(size=shape).astype("float32") * rng.uniform(0.01, 10, shape[-1]))
    kernel = tf.cast(kernel, "float32")
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        rounded = fake_quant_kernel(kernel, axes, bits)
    steps = 2 ** (bits - 1) - 1
    scale = np.abs(kernel).max(axis=axes, keepdims=True) / steps
    integers = rounded.numpy() / scale
    np.testing.assert_allclose(integers, np.rint(integers), atol=1e-4)  # float32 has 7 digits, the integers 3
    assert (np.abs(np.rint(integers)).max(axis=axes) == steps).all()  # so that a converter finds the same scale
    assert np.abs(rounded - kernel).max() <= scale.max() / 2 * (1 + 1e-5)
    np.testing.assert_array_equal(tape.gradient(rounded, kernel), np.ones(shape))


def test_kernel_equals_tensorflow_per_channel(rng):
    kernel = rng.normal(size=(3, 3, 8, 16)).astype("float32")
    largest = np.abs(kernel).max(axis=(0, 1, 2))
    expected = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        kernel, -largest, largest, num_bits=8, narrow_range=True
    )
    # One float32 step: TensorFlow multiplies by the inverse of the scale.
    np.testing.assert_allclose(fake_quant_kernel(kernel, (0, 1, 2)), expected, rtol=3e-7)


def test_a_channel_of_zeros_stays_zero_and_finite():
    kernel = np.zeros((3, 3, 2, 4), "float32")
    np.testing.assert_array_equal(fake_quant_kernel(kernel, (0, 1, 2)), kernel)


def observed(layer, batches):
    for batch in batches:
        layer(np.asarray(batch, "float32"), training=True)
    return layer.range


BATCHES = [[-1.0, 2.0], [-3.0, 4.0], [-2.0, 0.5]]


def test_moving_average_is_a_mean_until_the_decay_takes_over():
    assert observed(FakeQuant(), BATCHES[:1]) == (-1.0, 2.0)
    np.testing.assert_allclose(observed(FakeQuant(), BATCHES), (-2.0, 6.5 / 3), rtol=1e-6)
    low, high = observed(FakeQuant(observer=MovingAverage(0.25)), BATCHES)
    np.testing.assert_allclose((low, high), (0.25 * -2.5 + 0.75 * -2, 0.25 * 3.5 + 0.75 * 0.5), rtol=1e-6)


def test_min_max_keeps_the_extremes():
    assert observed(FakeQuant(observer="min_max"), BATCHES) == (-3.0, 4.0)


def test_percentile_clips_outliers(rng):
    batch = rng.uniform(0, 1, 10_000).astype("float32")
    batch[0] = 1000.0
    low, high = observed(FakeQuant(observer=Percentile(99.0)), [batch])
    assert low == 0.0  # the range is widened to hold 0
    np.testing.assert_allclose(high, np.quantile(batch, 0.995), rtol=1e-5)


@pytest.mark.parametrize(("bits", "share"), [(4, 0.5), (8, 0.95)])  # of 256 steps fewer are to be gained than of 16
def test_least_error_beats_min_max_on_heavy_tails(rng, bits, share):
    batch = rng.standard_t(3, (8, 32, 32, 6)).astype("float32")
    error = {}
    for observer in ("min_max", "least_error"):
        layer = FakeQuant(bits, observer=observer)
        layer.build(batch.shape)
        layer.observe(batch)
        error[observer] = float(np.square(layer(batch) - batch).mean())
    assert error["least_error"] < share * error["min_max"]
    even = np.linspace(-1.0, 2.0, 6000, dtype="float32").reshape(10, 600)
    found = observed(FakeQuant(bits, observer=LeastError()), [even])
    np.testing.assert_allclose(found, (-1.0, 2.0), atol=3.0 / (2**bits - 1))  # what is worth a step at most is clipped


def test_range_always_holds_zero_and_has_a_width():
    assert observed(FakeQuant(), [[2.0, 3.0]]) == (0.0, 3.0)
    assert observed(FakeQuant(), [[-2.0, -1.0]]) == (-2.0, pytest.approx(0.0, abs=1e-6))
    low, high = observed(FakeQuant(), [[0.0, 0.0]])
    assert low == 0.0 < high


@pytest.mark.parametrize("bits", [8, 16])
def test_symmetric_grid_has_zero_in_the_middle(bits):
    low, high = observed(FakeQuant(bits=bits, symmetric=True), [[-1.0, 3.0]])
    assert high == 3.0
    scale = (high - low) / (2**bits - 1)
    np.testing.assert_allclose(low / scale, -(2 ** (bits - 1)), rtol=1e-5)


def test_passes_through_before_the_first_batch_and_rounds_after_it(rng):
    layer, values = FakeQuant(), rng.normal(size=(4, 8)).astype("float32")
    np.testing.assert_array_equal(layer(values), values)
    trained = layer(values, training=True)
    np.testing.assert_array_equal(layer(values), trained)
    assert len(np.unique(np.round(trained / ((layer.range[1] - layer.range[0]) / 255)))) <= 256
    layer.reset()
    assert layer.range is None


def test_fixed_range_has_no_state_and_may_leave_training_alone():
    layer = FakeQuant(fixed_range=(0.0, 255.0 / 256.0), in_training=False)
    values = np.array([0.001, 0.4999, 1.0], "float32")
    np.testing.assert_array_equal(layer(values, training=True), values)
    np.testing.assert_array_equal(layer(values), [0.0, 0.5, 255.0 / 256.0])
    assert layer.weights == []


def test_half_precision_goes_in_and_out():
    layer = FakeQuant(dtype="mixed_float16")
    assert layer(np.ones((2, 3), "float16"), training=True).dtype == "float16"
    assert all(variable.dtype == "float32" for variable in layer.weights)


def test_pixels_stay_pixels():
    pixels = np.arange(256, dtype="float32")
    for low, high in [(-1.0, 1.0), (0.0, 1.0), (-2.0, 3.0)]:
        normalized = low + pixels * (high - low) / 255
        layer = InputQuant(low, high)
        rounded = np.asarray(layer(normalized.astype("float32")))
        np.testing.assert_allclose(rounded + layer.shift, normalized, atol=1e-6)
        np.testing.assert_allclose(rounded / layer.scale, pixels - layer.zero_point, atol=1e-4)
        assert abs(layer.shift) <= layer.scale / 2


def test_input_outside_the_range_is_noticed():
    layer = InputQuant()
    layer(np.array([[-1.0, 1.01]], "float32"), training=True)
    layer.check()
    layer(np.array([[0.0, 255.0]], "float32"), training=True)
    with pytest.raises(ValueError, match=r"saw inputs in \[-1, 255\].* quantized for \[-1, 1\]"):
        layer.check()


def test_input_range_is_told_in_the_units_of_the_model_input():
    layer = InputQuant(normalization=(1 / 127.5, -1.0))
    layer(np.array([[-5.0, 1.0]], "float32"), training=True)
    with pytest.raises(ValueError, match=r"saw inputs in \[-510, 255\].* quantized for \[0, 255\]"):
        layer.check()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FakeQuant(bits=1), "`bits` must be from 2 to 16. Received: bits=1"),
        (lambda: FakeQuant(fixed_range=(1.0, 2.0)), "`fixed_range` must be"),
        (lambda: FakeQuant(observer="mean"), "`observer` must be .*moving_average"),
        (lambda: MovingAverage(1.0), "`decay` must be in"),
        (lambda: Percentile(20), "`percent` must be in"),
        (lambda: InputQuant(1.0, 2.0), "around 0"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "layer",
    [
        FakeQuant(bits=4, symmetric=True, observer=Percentile(99.0, decay=0.5)),
        FakeQuant(fixed_range=(0, 1), observer=MinMax()),
        InputQuant(-2.0, 3.0, normalization=(0.5, 1.0)),
    ],
)
def test_config_round_trip(layer):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize(("activation", "function"), [("relu", tf.nn.relu), ("relu6", tf.nn.relu6)])
def test_quantizer_clips_for_the_relu_in_front(rng, activation, function):
    """The values and the gradient of rounding behind a ReLU, of a layer that has no ReLU in front."""
    plain, clipping = FakeQuant(), FakeQuant(activation=activation)
    for scale in 1.0, 4.0, 2.0:
        values = tf.constant(rng.normal(scale=scale, size=500).astype("float32"))
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(values)
            expected, found = plain(function(values), training=True), clipping(values, training=True)
        np.testing.assert_array_equal(found, expected)
        assert clipping.range == plain.range
        np.testing.assert_array_equal(tape.gradient(found, values), tape.gradient(expected, values))


def test_frozen_quantizer_without_a_range_still_clips():
    layer = FakeQuant(activation="relu6")
    layer.frozen = True
    np.testing.assert_array_equal(layer(np.array([-1.0, 1.25, 9.0], "float32"), training=True), [0.0, 1.25, 6.0])
