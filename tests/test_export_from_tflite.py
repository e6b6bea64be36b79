"""from_tflite: an integer file becomes a Keras model that answers as it did; others are refused with reasons."""

from __future__ import annotations

import importlib

import keras
import numpy as np
import pytest
from export_models import images, tiny

from keras_mobilenets import MobileNet, MobileNetV2
from keras_mobilenets.data import read_image
from keras_mobilenets.export import export_tflite
from keras_mobilenets.interop import from_tflite
from keras_mobilenets.layers import inline
from keras_mobilenets.quantization import calibrate, is_quantized, quantize_model
from keras_mobilenets.quantization.bias_correction import channel_means
from keras_mobilenets.tflite import TFLiteModel, read_tflite
from keras_mobilenets.tflite.edit.slim import pack
from keras_mobilenets.tflite.file import unpack

pytestmark = pytest.mark.usefixtures("eagerly")

SIZE = 32
CLASSES = 7


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((MobileNet, 0.25), id="V1"),
        pytest.param((MobileNetV2, 0.35), id="V2", marks=pytest.mark.slow),
    ],
)
def exported(request, tmp_path_factory):
    keras.utils.set_random_seed(0)
    builder, alpha = request.param
    model = builder((SIZE, SIZE, 3), alpha=alpha, weights=None, classes=CLASSES, momentum=0.0)
    model(images(64), training=True)  # momentum 0: the statistics are this batch's, so that signals live
    twin = quantize_model(model)
    calibrate(twin, images(64))
    path = tmp_path_factory.mktemp("from") / "model.tflite"
    export_tflite(twin, path, verbose=False)
    return model, path


def folded(model) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernels (..., channels) and biases with the batch normalization behind them folded in."""
    layers, pairs = inline(model).layers, []
    for layer, norm in zip(layers, [*layers[1:], None], strict=True):
        if not hasattr(layer, "kernel"):
            continue
        kernel, bias = np.asarray(layer.kernel), np.asarray(layer.bias) if layer.use_bias else 0.0
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            kernel = kernel[..., 0]
        if isinstance(norm, keras.layers.BatchNormalization):
            factor = np.asarray(norm.gamma) / np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
            kernel, bias = kernel * factor, (bias - np.asarray(norm.moving_mean)) * factor + np.asarray(norm.beta)
        pairs.append((kernel.reshape(-1, kernel.shape[-1]), bias))
    return pairs


@pytest.fixture
def uncorrected(monkeypatch):
    """The biases stay those of the file."""
    monkeypatch.setattr(importlib.import_module("keras_mobilenets.interop.from_tflite"), "correct_biases", print)


@pytest.mark.parametrize("measured", [False, True])
def test_weights_are_the_exported_ones_rounded(exported, measured, uncorrected):
    model, path = exported
    back = from_tflite(path, images=images(64) if measured else None)
    assert back.name == model.name and back.count_params() == model.count_params() and not is_quantized(back)
    for (kernel, bias), (found, found_bias) in zip(folded(model), folded(back), strict=True):
        step = np.abs(kernel).max(0) / 127  # one symmetric grid of 8 bits for each channel
        assert (np.abs(kernel - found) <= 0.501 * step + 1e-6).all()
        # An int32 in units of input step times kernel step; no input here is wider than [-4, 8].
        assert (np.abs(bias - found_bias) <= step * 12 / 255 + 1e-5).all()


def test_quantized_model_is_the_file(exported, tmp_path):
    """Exported again, the same integers come out: one step may differ where a range is rounded to float32."""
    _, path = exported
    twin = from_tflite(path, quantized=True)
    assert is_quantized(twin)
    export_tflite(twin, tmp_path / "again.tflite", verbose=False)
    pixels = np.rint((images(32) + 1) * 127.5).astype(np.uint8)
    first, again = (TFLiteModel(one).predict(pixels, raw=True).astype(int) for one in (path, tmp_path / "again.tflite"))
    assert np.abs(first - again).max() <= 2


def test_images_give_channels_the_means_of_the_file(exported):
    _, path = exported
    content, kernels = path.read_bytes(), ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    outputs = [one.outputs[0] for one in read_tflite(path).graph.operators if one.name in kernels]
    module = importlib.import_module("keras_mobilenets.interop.from_tflite")
    wanted = module._means_in_file(content, outputs, images(64))
    errors = []
    for model in (from_tflite(path, images=images(64)), from_tflite(path)):
        # V2's last layer has its softmax inside: there are no means in front of it, and its bias stays.
        found = channel_means(model, images(64)).values()
        errors.append(np.concatenate([np.abs(one - mean) for one, mean in zip(found, wanted, strict=False)]).mean())
    # Not all of it: where ReLU6 cuts off some values, the mean is no straight line of the bias.
    assert errors[0] < 0.2 * errors[1]


def test_measured_statistics_keep_the_function_and_make_it_trainable(exported, uncorrected):
    _, path = exported
    frozen, measured = from_tflite(path), from_tflite(path, images=images(64))
    expected = frozen.predict(images(16), verbose=0)
    np.testing.assert_allclose(measured.predict(images(16), verbose=0), expected, atol=1e-4)
    # Statistics of the very batch: training mode answers as inference does, dropout apart.
    in_training = keras.ops.convert_to_numpy(measured(images(64), training=True))
    assert np.abs(in_training - measured.predict(images(64), verbose=0)).max() < 0.1
    assert not any(layer.trainable for layer in _norms(frozen)) and all(layer.trainable for layer in _norms(measured))
    measured.compile("adam", "sparse_categorical_crossentropy")
    losses = [measured.train_on_batch(images(32), np.arange(32) % CLASSES) for _ in range(4)]
    assert losses[-1] < losses[0]


def _norms(model):
    return [layer for layer in inline(model).layers if isinstance(layer, keras.layers.BatchNormalization)]


@pytest.mark.parametrize(
    ("model", "quantize", "reason"),
    [
        ({}, None, "CONV_2D, is float32, not integer"),
        ({"activation": "hard_swish"}, "int8", "is MUL, and they have none such"),
        ({}, "int8", "its last block gives 1 channels, of the published widths it is"),
    ],
)
def test_foreign_graphs_are_refused_with_reasons(model, quantize, reason, tmp_path):
    path = tmp_path / "m.tflite"
    export_tflite(tiny(**model), path, quantize=quantize, calibration=images(16), verbose=False)
    with pytest.raises(
        ValueError, match=f"m.tflite cannot become a MobileNet or MobileNetV2 of this package: .*{reason}"
    ):
        from_tflite(path)


def test_other_strides_and_another_order_are_refused(exported):
    _, path = exported
    kernels = [one.index for one in read_tflite(path).graph.operators if one.name.endswith("CONV_2D")]
    changed = unpack(path.read_bytes())
    options = changed.subgraphs[0].operators[kernels[1]].builtinOptions
    options.strideH = options.strideW = 2
    with pytest.raises(ValueError, match=f"operation {kernels[1]} is .*strides .2, 2.*, where mobilenet.* has"):
        from_tflite(pack(changed))
    changed = unpack(path.read_bytes())
    operators = changed.subgraphs[0].operators
    operators[kernels[3]].inputs = np.array([operators[kernels[0]].outputs[0], *operators[kernels[3]].inputs[1:]])
    with pytest.raises(ValueError, match=f"operation {kernels[3]}, .* does not read what the one before it wrote"):
        from_tflite(pack(changed))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "agreement"),
    [
        # Of 100 photographs; benchmarks/pretrained.csv has all 500. The rest is the rounding of feature maps, which a
        # float model does not do: XNNPACK and the plain kernels give .978, .980, .988, .986 of them the same answer.
        ("mobilenet_v1_0.25_128_quant", 0.95),
        ("mobilenet_v1_0.5_160_quant", 0.96),
        ("mobilenet_v2_1.0_224_quant", 0.97),
        ("tf2_mobilenet_v2_1.0_224_ptq", 0.96),
    ],
)
def test_published_files(testdata, name, agreement):
    file = testdata / "published" / f"{name}.tflite"
    original = TFLiteModel(file)
    photographs = sorted((testdata / "data" / "imagenet_sample").glob("*.jpg"))
    pixels = np.stack([read_image(path, original.input_shape[0]) for path in [*photographs[::5], *photographs[1::10]]])
    normalized = pixels / np.float32(127.5) - 1
    model, pixels = from_tflite(file, images=normalized[100:]), pixels[:100]
    answers = model.predict(normalized[:100], batch_size=25, verbose=0).argmax(-1)
    scores = original.predict(pixels)
    # Probabilities in steps of 1/256 tie for the first place on one image in twenty: any of them is the file's answer.
    assert np.mean(scores[np.arange(len(scores)), answers] == scores.max(-1)) >= agreement
