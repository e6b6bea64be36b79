"""Segmentation networks, counted and run."""

import numpy as np
import pytest

from keras_mobilenets import LRASPP, DeepLabV3
from keras_mobilenets.tasks import Segmentation
from keras_mobilenets.training import build_model


def trained_parameters(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def test_as_many_parameters_as_torchvision():
    model = LRASPP("MobileNetV3Large", (64, 64, 3), backbone_weights=None)
    assert trained_parameters(model) == 3_221_538  # lraspp_mobilenet_v3_large


# In millions, to the digits that the papers print: arXiv:1801.04381, Table 7; 1905.02244, Table 7.
@pytest.mark.parametrize(
    ("builder", "backbone", "options", "printed"),
    [
        (DeepLabV3, "MobileNet", {"aspp": True}, 11.15),
        (DeepLabV3, "MobileNetV2", {"aspp": True}, 4.52),
        (DeepLabV3, "MobileNetV2", {}, 2.11),
        (LRASPP, "MobileNetV3Large", {"classes": 19, "reduced_tail": "whole"}, 1.51),
        (LRASPP, "MobileNetV3Small", {"classes": 19, "reduced_tail": "whole"}, 0.47),
    ],
)
def test_as_many_parameters_as_printed(builder, backbone, options, printed):
    model = builder(backbone, (64, 64, 3), backbone_weights=None, **options)
    assert trained_parameters(model) / 1e6 == pytest.approx(printed, rel=0.01)


@pytest.mark.parametrize(
    ("builder", "backbone", "options"),
    [
        (LRASPP, "MobileNetV3Small", {"output_stride": 32}),
        (LRASPP, "MobileNet", {"output_stride": 16}),
        (DeepLabV3, "MobileNetV4ConvSmall", {"output_stride": 8, "aspp": True}),
        (DeepLabV3, "MobileNetV3Small", {"output_stride": 32, "neck": True}),
    ],
)
def test_one_answer_for_each_pixel(rng, builder, backbone, options):
    shape = (64, 96, 3)
    model = builder(backbone, shape, classes=4, alpha=0.5, backbone_weights=None, **options)
    assert model(rng.uniform(0, 255, (1, *shape)).astype("float32"))["mask"].shape == (1, 64, 96, 4)


@pytest.mark.parametrize(
    ("builder", "arguments"),
    [
        (LRASPP, {"output_stride": 8}),
        (LRASPP, {"input_shape": (65, 64, 3)}),
        (LRASPP, {"classes": 0}),
        (LRASPP, {"reduced_tail": "half"}),
        (DeepLabV3, {"input_shape": (65, 64, 3)}),
        (DeepLabV3, {"output_stride": 4, "input_shape": (64, 64, 3)}),
    ],
)
def test_bad_arguments_are_named(builder, arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must"):
        builder("MobileNetV3Large", backbone_weights=None, **arguments)


def test_images_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="multiples of 16"):
        build_model("MobileNet", Segmentation(3), image_size=100, alpha=0.25)
