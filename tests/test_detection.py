"""The task of a detector: its losses, its answers and how they are scored."""

import keras
import numpy as np
import pytest
from PIL import Image

from keras_mobilenets import SSDLite, inline
from keras_mobilenets.tasks import Detection
from keras_mobilenets.tasks.boxes import SCALES, Anchors, overlap
from keras_mobilenets.tasks.detection import SAME
from keras_mobilenets.training import build_model

TASK = Detection(2, image_size=(64, 64), alpha=0.35)
SOFTMAX = Detection(2, image_size=(64, 64), background=True)
tasks = pytest.mark.parametrize("task", [TASK, SOFTMAX], ids=["sigmoid", "softmax"])
TRUTH = {
    "boxes": np.array([[[0.1, 0.1, 0.5, 0.6], [0.4, 0.3, 0.9, 0.9], [0, 0, 0, 0]], [[0, 0, 0, 0]] * 3], "float32"),
    "labels": np.array([[1, 0, -1], [-1, -1, -1]]),
}


def perfect(task, truth):
    """What a network would answer that knows all: for each anchor over a box by .5, and the best one, that box."""
    anchors = task.anchors_of_image()
    count = len(truth["boxes"]), len(anchors)
    boxes, scores = np.zeros((*count, 4), "float32"), np.zeros((*count, task.classes + task.background), "float32")
    scores[..., 0] = task.background
    corners = np.concatenate([anchors[:, :2] - anchors[:, 2:] / 2, anchors[:, :2] + anchors[:, 2:] / 2], -1)
    for image, (rows, labels) in enumerate(zip(truth["boxes"], truth["labels"], strict=True)):
        shares = np.array([overlap(row, corners) * (label >= 0) for row, label in zip(rows, labels, strict=True)])
        for number in np.flatnonzero(labels >= 0):
            mine = (shares.argmax(0) == number) & (shares.max(0) >= SAME)
            mine[shares[number].argmax()] = True
            center, size = (rows[number, :2] + rows[number, 2:]) / 2, rows[number, 2:] - rows[number, :2]
            wanted = [(center - anchors[mine, :2]) / anchors[mine, 2:], np.log(size / anchors[mine, 2:])]
            boxes[image, mine] = np.concatenate(wanted, -1) * np.array(SCALES)
            scores[image, mine] = np.eye(scores.shape[-1])[labels[number] + task.background]
    return {"boxes": boxes, "scores": scores}


@tasks
def test_who_knows_all_loses_nothing_and_scores_all(task):
    outputs, table = perfect(task, TRUTH), task.encode(TRUTH)
    for name, loss in task.losses(None)["loss"].items():
        # float32 of encodings up to 40; logarithms of 1 - 1e-7
        assert float(loss(table[name], outputs[name])) == pytest.approx(0, abs=1e-4)
    answers = task.decode(outputs)
    truth = [{name: values[image] for name, values in TRUTH.items()} for image in range(2)]
    figures = task.score(answers, truth)
    assert figures["mAP"] == pytest.approx(1) and figures["mAP_small"] == pytest.approx(1)
    assert figures["mAP_large"] is None and next(iter(figures)) == task.headline
    assert task.hits(answers, truth).tolist() == [1, 1] == task.agreement(answers, answers).tolist()
    assert {label: row["boxes"] for label, row in task.by_class(answers, truth).items()} == {0: 1, 1: 1}
    assert task.describe(answers[0], ["cat", "dog"])[0].keys() == {"name", "score", "box"}


@tasks
def test_losses_of_batches_without_boxes_are_finite_and_teach_nothing_of_boxes(task, rng):
    empty = {"boxes": np.zeros((2, 3, 4), "float32"), "labels": np.full((2, 3), -1)}
    boxes, scores = task.losses(None)["loss"].values()
    table = task.encode(empty)["boxes"]
    anchors = len(task.anchors_of_image())
    given = rng.uniform(0.1, 0.9, (2, anchors, task.classes + task.background)).astype("float32")
    assert float(boxes(table, rng.normal(size=(2, anchors, 4)).astype("float32"))) == 0
    assert 0 < float(scores(table, given)) < np.inf


def test_a_crowd_is_neither_right_nor_wrong():
    crowd = {"boxes": np.array([[[0.0, 0.0, 1.0, 1.0]]], "float32"), "labels": np.array([[-2]])}
    scores = TASK.losses(None)["loss"]["scores"]
    table = TASK.encode(crowd)["scores"]
    anchors = TASK.anchors_of_image()
    over = anchors[:, 2:].prod(-1) >= 0.5  # of the image
    answers = np.where(over[:, None], 0.9, 0.0)[None].repeat(2, -1).astype("float32")
    assert over.sum() > 0 and float(scores(table, answers)) == pytest.approx(0, abs=1e-6)
    right = {"boxes": np.zeros((0, 4)), "labels": np.zeros(0), "scores": np.zeros(0)}
    assert TASK.score([right], [{"boxes": crowd["boxes"][0], "labels": crowd["labels"][0]}])["mAP"] is None


@pytest.mark.slow
@pytest.mark.parametrize("background", [True, False])
def test_a_detector_learns_where_things_are(rng, background):
    task = Detection(1, image_size=(64, 64), background=background)
    keras.utils.set_random_seed(0)
    model = SSDLite("MobileNetV2", (64, 64, 3), classes=1, alpha=0.35, background=background, backbone_weights=None)
    images, boxes = rng.uniform(-1, -0.5, (8, 64, 64, 3)).astype("float32"), np.zeros((8, 1, 4), "float32")
    for image, box in zip(images, boxes, strict=True):
        top, left = rng.integers(0, 32, 2)
        image[top : top + 32, left : left + 32] = 1
        box[:] = np.array([top, left, top + 32, left + 32]) / 64
    truth = {"boxes": boxes, "labels": np.zeros((8, 1))}
    model.compile(keras.optimizers.Adam(3e-3), **task.losses(None), jit_compile=False)
    model.fit(images, task.encode(truth), batch_size=8, epochs=40, verbose=0)
    answers = task.decode({name: np.asarray(one) for name, one in model(images, training=True).items()})
    figures = task.score(answers, [{"boxes": box, "labels": np.zeros(1)} for box in boxes])
    assert figures["mAP_50"] > 0.9  # on what it has seen; 0 before


def test_pictures_show_true_and_found_boxes():
    image = np.zeros((40, 60, 3), np.uint8)
    answer = {"boxes": np.array([[0.1, 0.1, 0.4, 0.4]]), "labels": np.array([0]), "scores": np.array([0.9])}
    shown = TASK.show(image, answer, {"boxes": np.array([[0.5, 0.5, 0.9, 0.9]]), "labels": np.array([1])})
    assert tuple(shown[4, 6]) == (217, 72, 43) and tuple(shown[20, 30]) == (46, 158, 79)
    assert Image.fromarray(shown).size == (60, 40)


def test_anchors_ask_for_as_many_maps():
    with pytest.raises(ValueError, match="`map_sizes` must have 1 entries"):
        Anchors(((1.0,),), ((0.5,),)).around([(2, 2), (1, 1)])


def test_anchors_that_cover_small_boxes_are_named(rng):
    corners = rng.uniform(0, 0.9, (40, 2))
    truth = [{"boxes": np.concatenate([corners, corners + 0.06], -1), "labels": np.zeros(40)}]
    lines = Detection(1).examine(truth)
    assert lines[1].startswith("anchors overlap 0.0% of them by 0.5") and "(--anchors 0." in lines[2]
    large = [{"boxes": np.array([[0.1, 0.1, 0.9, 0.9]]), "labels": np.zeros(1)}]
    assert len(Detection(1).examine(large)) == 2


def test_the_heads_statistics_keep_up_in_a_short_run():
    task = Detection(1, image_size=(32, 32), alpha=0.25)
    model = build_model("MobileNet", task, image_size=32, alpha=0.25, momentum=0.8)
    norms = [one for one in inline(model).layers if isinstance(one, keras.layers.BatchNormalization)]
    assert any(one.name.startswith("extra_") for one in norms) and {one.momentum for one in norms} == {0.8}
