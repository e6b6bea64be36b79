"""Anyone's `tf.data.Dataset`: every usual form of pictures and labels, and a split that no shuffling undoes."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from runs import slow_but

from keras_mobilenets.data import load

COUNT = 20
SMOOTH = [np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8) for seed in range(COUNT)]
IMAGES = np.stack([np.asarray(Image.fromarray(one).resize((12, 12), Image.Resampling.BICUBIC)) for one in SMOOTH])
IMAGES[0, 0, :2] = [[0, 0, 0], [255, 255, 255]]
LABELS = np.arange(COUNT) % 3
OPTIONS = {"image_size": 12, "batch_size": 5, "augment": "none"}


def pngs():
    for image in IMAGES:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        yield file.getvalue()


def dataset(images=IMAGES, labels=LABELS):
    return tf.data.Dataset.from_tensor_slices((images, labels))


def pictures(batches):
    """(pixels, label) of each picture, as bytes."""
    return [
        (np.asarray(image).astype(np.uint8).tobytes(), int(label))
        for images, labels in batches
        for image, label in zip(images, labels, strict=True)
    ]


EXPECTED = sorted(pictures([(IMAGES, LABELS)]))
GREY = IMAGES[..., 1]
EXPECTED_GREY = sorted(pictures([(np.repeat(GREY[..., np.newaxis], 3, -1), LABELS)]))

FORMS = {
    "encoded": (list(pngs()), LABELS),
    "uint8": (IMAGES, LABELS),
    "pixels": (IMAGES.astype(np.float32), LABELS),
    "0 to 1": (IMAGES / np.float32(255), LABELS),
    "-1 to 1": (IMAGES / np.float32(127.5) - 1, LABELS),
    "half": (IMAGES.astype(np.float16), LABELS),
    "16 bits": (IMAGES.astype(np.uint16) * 257, LABELS),
    "int32": (IMAGES.astype(np.int32), LABELS),
    "grey": (GREY[..., np.newaxis] / np.float32(255), LABELS),
    "grey without channels": (GREY / np.float32(255), LABELS),
    "one-hot": (IMAGES, np.eye(3, dtype=np.float32)[LABELS]),
    "column of real numbers": (IMAGES, LABELS[:, np.newaxis].astype(np.float32)),
}


@pytest.mark.parametrize("batched", slow_but([False, True], True))
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_pictures_and_labels_is_read_alike(form, batched):
    given = dataset(*FORMS[form])
    if batched:
        given = given.batch(6).map(lambda image, label: {"id": 1, "label": label, "image": image})
    data = load(given, **OPTIONS, validation_split=0.25)
    assert (data.train_count, data.val_count, data.class_names) == (15, 5, ("0", "1", "2"))
    found = pictures(data.train) + pictures(data.val)
    assert sorted(found) == (EXPECTED_GREY if "grey" in form else EXPECTED)


SHUFFLED = {
    "shuffle": lambda data: data.shuffle(COUNT),
    "shuffle and batch": lambda data: data.shuffle(COUNT).batch(4),
    "batch and shuffle": lambda data: data.batch(4).shuffle(COUNT),
    "in parallel": lambda data: data.map(lambda *one: one, 2, deterministic=False),
    "a generator": lambda data: tf.data.Dataset.from_generator(
        lambda: np.random.default_rng().permutation(list(range(COUNT))), output_signature=tf.TensorSpec((), tf.int64)
    ).map(lambda index: (tf.gather(IMAGES, index), tf.gather(LABELS, index))),
}


@pytest.mark.parametrize("kind", SHUFFLED)
def test_what_is_held_out_is_never_trained_on(kind):
    """However the dataset is shuffled anew; and the same pictures are held out by the same seed."""
    options = {**OPTIONS, "batch_size": 4}
    data, same, other = (load(SHUFFLED[kind](dataset()), **options, seed=seed) for seed in (0, 0, 1))
    held_out = sorted(pictures(data.val))
    assert held_out == sorted(pictures(same.val)) != sorted(pictures(other.val))
    for _ in range(3):
        assert sorted(pictures(data.train) + pictures(data.val)) == EXPECTED and sorted(pictures(data.val)) == held_out


def test_keras_folders_are_split_rightly(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for index in range(10):
            Image.fromarray(IMAGES[index + 10 * (name == "bee")]).save(tmp_path / name / f"{index}.png")
    for mode in ("int", "categorical", "binary"):
        given = keras.utils.image_dataset_from_directory(
            tmp_path, image_size=(12, 12), batch_size=7, label_mode=mode, verbose=False, seed=1
        )
        data = load(given, **OPTIONS)
        assert (data.class_names, data.val_count) == (("ant", "bee"), 4)
        held_out = {one for one, _ in pictures(data.val)}
        assert not held_out & {one for _ in range(3) for one, _ in pictures(data.train)}
    parts = keras.utils.image_dataset_from_directory(
        tmp_path, image_size=(12, 12), validation_split=0.2, subset="both", seed=1, verbose=False
    )
    data = load(parts, **OPTIONS)
    assert (data.train_count, data.val_count) == (16, 4)


def test_pictures_that_are_the_same_stay_together():
    data = load(dataset(np.concatenate([IMAGES] * 2), np.concatenate([LABELS] * 2)), **OPTIONS)
    held_out = {one for one, _ in pictures(data.val)}
    assert not held_out & {one for one, _ in pictures(data.train)}
    assert (data.train_count, data.val_count) == (32, 8)


RANDOM = tf.random.Generator.from_seed(0)
REFUSED = {
    "parts of a shuffled dataset": (
        lambda: (dataset().shuffle(COUNT).take(10), dataset().shuffle(COUNT).skip(10)),
        "the same pictures on every pass",
    ),
    "random changes": (
        lambda: dataset().map(lambda image, label: (image + tf.cast(RANDOM.uniform((), 0, 99), tf.uint8), label)),
        "Leave random changes to `augment`",
    ),
    "standardized": (lambda: dataset(IMAGES / 50.0 - 2), r"pixels in \[0, 255\].*Received: values from -2 to 3.1"),
    "16 levels": (lambda: dataset(IMAGES / 16.0), "values from 0 to 15.9"),
    "no numbers": (lambda: dataset(IMAGES * np.nan), "values from nan"),
    "several labels": (lambda: dataset(labels=np.ones((COUNT, 3))), "one class for each picture"),
    "a share of each class": (lambda: dataset(labels=np.full((COUNT, 2), 0.5)), "one class for each picture"),
    "negative": (lambda: dataset(labels=LABELS - 1), "one class for each picture: a number >= 0"),
    "names": (lambda: dataset(labels=LABELS.astype(str)), "`data` must give pairs"),
    "no labels": (lambda: tf.data.Dataset.from_tensor_slices(IMAGES), "`data` must give pairs"),
    "other keys": (lambda: dataset().map(lambda image, label: {"x": image, "y": label}), '"image" and "label"'),
    "two channels": (lambda: dataset(IMAGES[..., :2]), "1 or 3 channels"),
    "nothing": (lambda: dataset().take(0), "no pictures"),
    "one picture": (lambda: dataset().take(1), "to train on and others to hold out"),
    "three datasets": (lambda: (dataset(),) * 3, "Received: 3"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_sentence(case):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        load(make(), **OPTIONS)
