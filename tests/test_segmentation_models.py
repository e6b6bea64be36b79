"""Segmentation networks, counted and run."""

import numpy as np
import pytest

from keras_mobilenets import LRASPP


def trained_parameters(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def test_as_many_parameters_as_torchvision():
    model = LRASPP("MobileNetV3Large", (64, 64, 3), backbone_weights=None)
    assert trained_parameters(model) == 3_221_538  # lraspp_mobilenet_v3_large


@pytest.mark.parametrize(("backbone", "output_stride"), [("MobileNetV3Small", 32), ("MobileNet", 16)])
def test_one_answer_for_each_pixel(rng, backbone, output_stride):
    shape = (64, 96, 3)
    model = LRASPP(backbone, shape, classes=4, alpha=0.5, output_stride=output_stride, backbone_weights=None)
    assert model(rng.uniform(0, 255, (1, *shape)).astype("float32"))["mask"].shape == (1, 64, 96, 4)


@pytest.mark.parametrize("arguments", [{"output_stride": 8}, {"input_shape": (65, 64, 3)}, {"classes": 0}])
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must"):
        LRASPP(backbone_weights=None, **arguments)
