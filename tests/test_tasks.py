"""A task is one object: what classifiers of every form answer, how right that is, and which task a form says."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_mobilenets.export import export_tflite
from keras_mobilenets.quantization import quantize_model
from keras_mobilenets.tasks import Classification, task_of
from keras_mobilenets.tasks.task import each, named
from keras_mobilenets.tflite import read_tflite
from keras_mobilenets.tflite.metadata import TensorInfo
from keras_mobilenets.training.recipes import recipe

LOGITS = np.array([[2.0, -1.0, 0.5], [-3.0, -0.1, -0.2], [0.3, 0.2, 0.1], [-1.0, 4.0, 0.0]], "float32")
FORMS = {  # the task, and what its Dense layer's activation is
    "softmax": (Classification(3), "softmax"),
    "logits": (Classification(3, from_logits=True), None),
    "sigmoid": (Classification(1), "sigmoid"),
    "multi-label": (Classification(3, multi_label=True), "sigmoid"),
}


def model_of(activation, units):
    inputs = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Flatten()(keras.layers.Conv2D(2, 3, strides=2, activation="relu")(inputs))
    return keras.Model(inputs, keras.layers.Dense(units, activation=activation, name="predictions")(x))


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_a_model_and_of_its_file_says_the_task(form, tmp_path):
    task, activation = FORMS[form]
    model = model_of(activation, task.classes)
    assert task_of(model) == task
    assert export_tflite(model, tmp_path / "one.tflite", verbose=False).parity.agreement == 1.0
    of_file = task_of(read_tflite(tmp_path / "one.tflite"))
    assert dataclasses.replace(task_of(quantize_model(model)), outputs=task.outputs) == task
    assert (of_file.classes, of_file.activation, of_file.from_logits) == (
        task.classes,
        task.activation,
        task.from_logits,
    )


def test_what_nobody_said_is_not_claimed():
    inputs = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(inputs)
    boxes, scores = keras.layers.Dense(4, name="boxes")(flat), keras.layers.Dense(3, name="scores")(flat)
    several = keras.Model(inputs, {"boxes": boxes, "scores": scores})
    mask = keras.Model(inputs, keras.layers.Conv2D(2, 1, activation="softmax")(inputs))
    number = keras.Model(inputs, keras.layers.Dense(1)(flat))

    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    assert [task_of(one) for one in (several, mask, number, Subclassed())] == [None] * 4


@pytest.mark.parametrize("form", FORMS)
def test_answers_are_probabilities_and_scored_as_keras_does(form):
    task, _ = FORMS[form]
    logits = LOGITS[:, : task.classes]
    truth = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 0], [0, 1, 0]]) if task.multi_label else np.array([0, 1, 1, 1])
    answers = task.decode(getattr(keras.ops, task.activation)(logits) if not task.from_logits else logits)
    assert answers.shape == (4, max(task.classes, 2))
    assert task.multi_label or np.allclose(answers.sum(-1), 1, atol=1e-6)  # float32
    compiled = keras.Sequential([keras.Input(logits.shape[1:]), keras.layers.Activation("linear")])
    arguments = Classification(task.classes, multi_label=task.multi_label, from_logits=True).losses(recipe("scratch"))
    compiled.compile(**arguments)
    by_keras = compiled.evaluate(logits, truth.astype("float32"), verbose=0, return_dict=True)["accuracy"]
    assert task.score(answers, truth)["accuracy"] == pytest.approx(by_keras, abs=1e-6)
    assert np.array_equal(task.agreement(answers, answers), np.ones(4))
    other = 1 - answers
    assert task.agreement(answers, other).mean() < 1 and task.agreement(answers, other)[3] < 1
    right = {label: counts["right"] for label, counts in task.by_class(answers, truth).items()}
    if not task.multi_label:
        assert sum(right.values()) == pytest.approx(4 * by_keras)


def test_soft_labels_count_for_the_class_with_the_largest_share():
    task, answers = Classification(3), np.eye(3)[[0, 1]]
    assert task.hits(answers, [[0.6, 0.4, 0.0], [0.7, 0.3, 0.0]]).tolist() == [1.0, 0.0]


def test_words_for_an_answer():
    task, names = Classification(3), ["cat", "dog", "owl"]
    assert task.describe([0.1, 0.7, 0.2], names, top=2) == [
        {"name": "dog", "score": 0.7},
        {"name": "owl", "score": 0.2},
    ]
    assert task.caption([0.1, 0.7, 0.2], 1, names) == "dog"
    assert task.caption([0.1, 0.7, 0.2], 2, None) == "class 2, taken for class 1"
    assert Classification(3, multi_label=True).caption([0.9, 0.7, 0.2], [1, 0, 0], names) == "cat, taken for cat, dog"
    (described,) = Classification(1).in_file(["no", "yes"]).outputs
    assert described == TensorInfo("predictions", labels=("no", "yes"), labels_of_values=True)
    with pytest.raises(ValueError, match="3 classes. Received: 2 names"):
        task.in_file(["cat", "dog"])


def test_the_head_stands_on_maps_or_on_features():
    maps = {"4": keras.Input((4, 4, 8)), "8": keras.Input((2, 2, 16))}
    for given in (maps, maps["8"], keras.Input((16,))):
        scores = Classification(5).head(given)
        assert scores.shape == (None, 5)
    with pytest.raises(ValueError, match="classes=0"):
        Classification(0)


def test_outputs_go_by_name_or_by_order():
    boxes, scores = np.zeros((1, 4)), np.ones((1, 3))
    for given in ({"scores": scores, "boxes": boxes}, [boxes, scores]):
        assert named(given, ["boxes", "scores"])["boxes"] is boxes
    with pytest.raises(ValueError, match=r"lacks \['scores'\]"):
        named({"boxes": boxes}, ["boxes", "scores"])
    with pytest.raises(ValueError, match="It has 1"):
        named(boxes, ["boxes", "scores"])
    assert each({"boxes": np.zeros((2, 7, 4)), "labels": np.ones((2, 7))})[1]["labels"].shape == (7,)
