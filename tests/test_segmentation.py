"""The task of a segmentation network: its loss, its answers and how they are scored."""

import keras
import numpy as np
import pytest

from keras_mobilenets import LRASPP
from keras_mobilenets.tasks import Segmentation
from keras_mobilenets.tasks.segmentation import palette

TASK = Segmentation(3)


@pytest.fixture
def truth(rng):
    masks = rng.integers(0, 3, (4, 32, 64)).astype("uint8")
    masks[:, :3] = 255
    masks[3] = 255  # of which nothing is known
    return masks


def test_scores_are_those_of_keras_and_of_the_figures_in_fit(rng, truth):
    logits = rng.normal(size=(*truth.shape, 3)).astype("float32")
    answers = TASK.decode(logits)
    figures = TASK.score(answers, truth)
    arguments = TASK.losses(None)
    (metric,) = arguments["metrics"]["mask"]
    metric.update_state(truth, logits)
    assert figures["mIoU"] == pytest.approx(float(metric.result()), abs=1e-6)  # float32
    known = truth != 255
    assert figures["pixel_accuracy"] == pytest.approx((answers == truth)[known].mean())
    each = TASK.by_class(answers, truth)
    assert np.mean([one["IoU"] for one in each.values()]) == pytest.approx(figures["mIoU"])
    assert sum(one["pixels"] for one in each.values()) == pytest.approx(1)
    perfect = np.where(known, truth, 0)
    assert TASK.score(perfect, truth) == {"mIoU": 1.0, "pixel_accuracy": 1.0}
    assert TASK.hits(perfect, truth).tolist() == [1.0] * 4 and TASK.hits(answers, truth)[0] < 0.5
    assert TASK.agreement(answers, perfect)[0] == (answers[0] == perfect[0]).mean()
    assert TASK.score(answers[3:], truth[3:]) == {"mIoU": None, "pixel_accuracy": None}


@pytest.mark.parametrize("corners", [False, True])
def test_smaller_answers_count_at_the_size_of_the_truth(rng, truth, corners):
    task = Segmentation(3, corners=corners)
    small = rng.normal(size=(4, 8, 16, 3)).astype("float32")
    large = keras.ops.image.resize(small, truth.shape[1:], "bilinear")  # edges on edges
    arguments = task.losses(None)
    loss, (metric,) = arguments["loss"]["mask"], arguments["metrics"]["mask"]
    assert (abs(float(loss(truth, small)) - float(loss(truth, large))) < 1e-5) != corners  # float32
    metric.update_state(truth, small)
    assert task.score(task.decode(small, truth.shape[1:]), truth)["mIoU"] == pytest.approx(
        float(metric.result()), abs=1e-6
    )
    assert type(metric).from_config(metric.get_config()).corners is corners


@pytest.mark.parametrize("weights", [None, (1.0, 5.0, 0.0)])
def test_the_loss_is_that_of_the_labelled_pixels(rng, truth, weights):
    logits = rng.normal(size=(*truth.shape, 3)).astype("float32")
    loss = Segmentation(3, class_weights=weights).losses(None)["loss"]["mask"]
    known = truth != 255
    each = keras.ops.convert_to_numpy(keras.losses.sparse_categorical_crossentropy(truth[known], logits[known], True))
    expected = np.average(each, weights=None if weights is None else np.array(weights)[truth[known]])
    assert float(loss(truth, logits)) == pytest.approx(expected, rel=1e-5)  # float32
    assert float(loss(truth[3:], logits[3:])) == 0.0
    assert type(loss).from_config(loss.get_config()).class_weights == (None if weights is None else list(weights))


def test_answers_are_as_large_as_the_image(rng):
    logits = rng.normal(size=(1, 8, 16, 3)).astype("float32")
    resized = keras.ops.image.resize(logits, (32, 48), "bilinear")
    assert np.array_equal(TASK.decode(logits, (32, 48)), np.argmax(resized, -1))
    numbers = np.arange(6).reshape(1, 2, 3)
    for given in (numbers, numbers[..., None]):  # where the file computes the argmax
        assert TASK.decode(given, (4, 3))[0].tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]]


def test_words_and_colours():
    image, answer = np.full((4, 6, 3), 100, np.uint8), np.array([[1, 1, 1], [1, 2, 2]])
    assert TASK.describe(answer, ["sky", "road", "car"]) == [
        {"name": "road", "score": pytest.approx(2 / 3)},
        {"name": "car", "score": pytest.approx(1 / 3)},
    ]
    assert TASK.caption(answer, answer, ["sky", "road", "car"]) == "road 67%, car 33%; overlap 100%"
    shown = TASK.show(image, answer, np.full((4, 6), 255))
    assert shown.shape == (4, 12, 3) and (shown[:, 6:] == image).all()
    assert (shown[0, 0] == np.rint(0.45 * 100 + 0.55 * palette(2)[1])).all()
    assert TASK.in_file(["sky", "road", "car"]).outputs[0].labels == ("sky", "road", "car")
    with pytest.raises(ValueError, match="3 classes. Received: 1 names"):
        TASK.in_file(["sky"])


@pytest.mark.parametrize("arguments", [{"classes": 1}, {"decoder": "unet"}, {"class_weights": (1.0, 1.0)}])
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must"):
        Segmentation(**{"classes": 3, **arguments})


@pytest.mark.slow
def test_a_network_learns_where_things_are(rng):
    keras.utils.set_random_seed(0)
    truth = np.zeros((4, 64, 64), np.uint8)
    for mask in truth:
        top, left = rng.integers(0, 32, 2)
        mask[top : top + 32, left : left + 32] = 1
    images = np.repeat(truth[..., None] * 2.0 - 1, 3, -1).astype("float32")
    model = LRASPP("MobileNetV2", (64, 64, 3), classes=2, alpha=0.35, output_stride=32, backbone_weights=None)
    task = Segmentation(2)
    model.compile(keras.optimizers.Adam(3e-3), **task.losses(None), jit_compile=False)
    history = model.fit(images, task.encode(truth), batch_size=4, epochs=25, verbose=0)
    assert history.history["mIoU"][-1] > 0.8  # .25 to .6 before; what it has seen, in training mode
