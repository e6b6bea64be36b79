"""Detectors: the papers' networks, counted."""

import keras
import numpy as np
import pytest

from keras_mobilenets import SSD300, SSDLite, inline
from keras_mobilenets.analysis import profile
from keras_mobilenets.tasks import torchvision_anchors

# Parameters in millions and multiply-accumulates in billions, to the digits that the papers print; and how many
# parameters they count for a channel of batch normalization.
PAPERS = [
    # arXiv:1704.04861, Table 13
    pytest.param(SSD300, "MobileNet", 91, 6.8, 1.2, 2, id="SSD300 V1"),
    # arXiv:1801.04381, Table 6
    pytest.param(SSDLite, "MobileNet", 81, 5.1, 1.3, 2, id="SSDLite V1", marks=pytest.mark.slow),
    pytest.param(SSDLite, "MobileNetV2", 81, 4.3, 0.8, 2, id="SSDLite V2", marks=pytest.mark.slow),
    # arXiv:1905.02244, Table 6
    pytest.param(SSDLite, "MobileNetV3Large", 90, 4.97, 0.62, 1, id="SSDLite V3 Large", marks=pytest.mark.slow),
    pytest.param(SSDLite, "MobileNetV3Small", 90, 2.49, 0.21, 1, id="SSDLite V3 Small"),
]


def test_a_reduced_tail_narrows_the_last_map_of_v2():
    options = {"alpha": 0.5, "classes": 90, "background": True, "backbone_weights": None}
    wide, narrow = (SSDLite("MobileNetV2", (64, 64, 3), reduced_tail=tail, **options) for tail in (False, True))
    # arXiv:1905.02244, Table 6, prints 1.54 M; one parameter for each channel of a normalization.
    norms = sum(one.gamma.shape[0] for one in inline(narrow).layers if isinstance(one, keras.layers.BatchNormalization))
    assert sum(int(np.prod(one.shape)) for one in narrow.trainable_weights) - norms == 1_549_319
    assert inline(wide).get_layer("Conv_1").filters == 1280


def test_as_many_parameters_as_torchvision():
    anchors = torchvision_anchors().per_pixel
    options = {"background": True, "anchors": anchors, "reduced_tail": True, "backbone_weights": None}
    model = SSDLite("MobileNetV3Large", (64, 64, 3), **options)
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trained == 3_440_060  # ssdlite320_mobilenet_v3_large, 91 classes with background


@pytest.mark.parametrize(("builder", "backbone", "classes", "parameters", "madds", "per_norm"), PAPERS)
def test_counts(builder, backbone, classes, parameters, madds, per_norm):
    model = builder(backbone, classes=classes, backbone_weights=None)
    norms = [one for one in inline(model).layers if isinstance(one, keras.layers.BatchNormalization)]
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    counted = trained - (2 - per_norm) * sum(norm.gamma.shape[0] for norm in norms)
    assert counted / 1e6 == pytest.approx(parameters, rel=0.011)  # the printed digits
    assert profile(model).madds / 1e9 == pytest.approx(madds, rel=0.032)


def test_outputs_by_name_for_any_backbone_and_anchors():
    model = SSDLite("MobileNetV3Small", (64, 96, 3), classes=2, alpha=0.5, background=True, backbone_weights=None)
    found = model(np.zeros((1, 64, 96, 3), "float32"))
    # 4x6 pixels with three anchors; 2x3, 1x2, and 1x1 thrice with six
    assert found["boxes"].shape == (1, 3 * 24 + 6 * (6 + 2 + 3), 4)
    np.testing.assert_allclose(keras.ops.sum(found["scores"], -1), 1, atol=1e-6)  # a softmax of three, in float32


def test_most_anchors_show_nothing_before_training(rng):
    model = SSDLite("MobileNetV2", (64, 64, 3), classes=2, alpha=0.35, backbone_weights=None)
    scores = model(rng.uniform(-1, 1, (2, 64, 64, 3)))["scores"]
    assert np.median(scores) == pytest.approx(0.01, rel=0.5)  # the head's kernels are small, not 0


def test_weights_of_a_detector_of_other_classes(tmp_path):
    options = {"alpha": 0.25, "backbone_weights": None}
    model = SSD300("MobileNet", (32, 32, 3), classes=3, **options)
    model.save_weights(tmp_path / "three.weights.h5")
    with pytest.warns(UserWarning, match="is of other classes: scores_0; .*; scores_5 of ssd.* begin anew"):
        other = SSD300("MobileNet", (32, 32, 3), classes=5, weights=tmp_path / "three.weights.h5", **options)
    for old, new in zip(inline(model).layers, inline(other).layers, strict=True):
        if not new.name.startswith("scores_"):
            for one, another in zip(old.get_weights(), new.get_weights(), strict=True):
                np.testing.assert_array_equal(one, another)
    with pytest.raises(ValueError, match="does not fit"):
        SSD300("MobileNet", (32, 32, 3), **{**options, "alpha": 0.5}, weights=tmp_path / "three.weights.h5")
