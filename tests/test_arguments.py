"""Every argument with a range: what no number, or none of it, can mean is one error that names the argument."""

import keras
import numpy as np
import pytest

from keras_mobilenets import (
    DepthwiseSeparableConv,
    InvertedResidual,
    LayerScale,
    MobileMQA,
    MobileNet,
    MobileNetV3Small,
    PixelScale,
    SqueezeExcite,
    UniversalInvertedBottleneck,
    calibrate,
    export_tflite,
    make_divisible,
    quantize_model,
    strip_quantization,
    tasks,
    training,
)
from keras_mobilenets import quantization as q
from keras_mobilenets.data import read_image
from keras_mobilenets.integer import integer_model

FILTERS = {"filters": 8}
HEADS = {"num_heads": 2, "key_dim": 4}
CONV = {"filters": 4, "kernel_size": 1}
SMALL = {"input_shape": (32, 32, 3), "weights": None}
PICTURE = {"source": np.zeros((8, 8, 3), "uint8"), "image_size": 4}
# What makes it, arguments that it must have, and those that are tried one by one: "?" where None has a meaning.
CHECKED = [
    (InvertedResidual, FILTERS, "filters kernel_size? strides dilation_rate expansion? se_ratio? drop_path"),
    (InvertedResidual, FILTERS, "momentum epsilon normalization?"),
    (DepthwiseSeparableConv, FILTERS, "filters kernel_size strides dilation_rate depth_multiplier"),
    (UniversalInvertedBottleneck, FILTERS, "filters start_kernel_size? expansion?"),
    (MobileMQA, HEADS, "num_heads key_dim kv_strides kernel_size drop_path"),
    (SqueezeExcite, {}, "ratio"),
    (make_divisible, {"value": 8}, "value divisor min_value? round_limit"),
    (MobileNet, SMALL, "alpha dropout pooling? classes output_stride stem_stride"),
    (MobileNetV3Small, SMALL, "alpha dropout_rate"),
    (q.FakeQuant, {}, "bits fixed_range? observer"),
    (q.InputQuant, {}, "normalization"),
    (q.MovingAverage, {}, "decay"),
    (q.Percentile, {}, "percent"),
    (q.FreezeQuantization, {}, "batch_norm_after? ranges_after?"),
    (q.QuantConv2D, CONV, "weight_bits kernel_range?"),
    (q.QuantizeConfig, {}, "weights? output weight_bits? activation_bits? observer?"),
    (q.QuantizeAnnotate, {}, "layer"),
    (q.QuantWeights, {"axes": {}}, "layer"),
    (tasks.Classification, {}, "classes"),
    (tasks.Detection, {"classes": 2}, "classes image_size alpha"),
    (tasks.Segmentation, {"classes": 2}, "classes decoder output_stride filters? class_weights?"),
    (tasks.Embedding, {}, "dimension temperature"),
    (tasks.Suppression, {}, "most most_of_class least_score most_overlap"),
    (tasks.ssd_anchors, {}, "maps smallest largest"),
    (tasks.torchvision_anchors, {}, "maps smallest largest"),
    (training.Checkpoint, {"folder": "checkpoints"}, "keep every"),
    (training.JsonLines, {"path": "log.jsonl"}, "every"),
    (read_image, PICTURE, "source image_size channels"),
    (strip_quantization, {}, "model"),
    (export_tflite, {"path": "model.tflite"}, "model"),
    (calibrate, {"data": np.zeros((1, 8, 8, 3))}, "model"),
    (PixelScale.of, {}, "model"),
    (integer_model, {}, "source"),
]


@pytest.mark.parametrize(("made", "given", "names"), CHECKED, ids=lambda one: getattr(one, "__name__", ""))
def test_what_an_argument_cannot_be_is_named(made, given, names):
    for name in names.split():
        values = [-1, float("nan"), True, [], object()]
        if name not in ("model", "source"):  # a text may be a path
            values.append("x")
        for value in values if name.endswith("?") else [None, *values]:
            plain = name.rstrip("?")
            if (plain, value) in (("output", True), ("weights", [])):
                continue
            with pytest.raises(ValueError, match=rf"`{plain}` must.*Received"):
                made(**{**given, plain: value})


@pytest.mark.parametrize("given", [None, "x", [], float("nan"), [1.0, float("inf")]])
def test_pixels_are_numbers(given):
    for made in (PixelScale, PixelScale.between, PixelScale.standardizing):
        with pytest.raises(ValueError, match="must be a finite number"):
            made(given, 1.0)
    with pytest.raises(ValueError, match="`initial` must be a finite number"):
        LayerScale(given if not isinstance(given, list) else None)


@pytest.mark.parametrize("skip", ["conv", None, [keras.layers.Dense(1)], 3])
def test_skip_takes_names(skip):
    with pytest.raises(ValueError, match="`skip` must be names of layers"):
        quantize_model(MobileNet((32, 32, 3), alpha=0.25, weights=None), skip=skip)
