"""Image folders, data sets by name, and the two ways a picture is read."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from runs import slow_but

from keras_mobilenets.data import BrokenImage, known_datasets, load, read_image, scan_folder


def picture(height=40, width=60, seed=0):
    """Smooth noise: a decoder that errs by more than rounding is seen, a JPEG does not distort it beyond use."""
    noise = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    for label, name in enumerate(("ant", "bee")):
        (tmp_path / name).mkdir()
        for index in range(5):
            picture(seed=10 * label + index).save(tmp_path / name / f"{index}.jpg", quality=95)
    return tmp_path


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_the_central_square_of_a_photograph_is_read():
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[6:94, 56:144] = 255  # 87.5 % of 100 pixels is 88 (rounded): all white if and only if the crop is right
    data = encoded(Image.fromarray(pixels), "PNG")
    assert read_image(data, 32).min() == 255
    pixels[6] = 0
    assert read_image(encoded(Image.fromarray(pixels), "PNG"), 32).min() < 255


def test_a_thumbnail_is_not_cropped():
    image = picture(32, 32)
    assert np.array_equal(read_image(encoded(image, "PNG"), 32), np.asarray(image))


def test_proportions_of_the_model_decide_the_crop():
    assert read_image(encoded(picture(100, 200), "PNG"), (24, 48)).shape == (24, 48, 3)


@pytest.mark.parametrize("data", [b"", b"<html>", encoded(picture(), "JPEG")[:400], encoded(picture(), "PNG")[:400]])
def test_what_is_no_whole_picture_is_named(tmp_path, data):
    path = tmp_path / "broken.jpg"
    path.write_bytes(data)
    with pytest.raises(BrokenImage, match=r"broken\.jpg: .+"):
        read_image(path, 32)


def test_folder_is_split_by_class_and_repeatably(folder):
    first, again, other = (scan_folder(folder, validation_split=0.4, seed=seed) for seed in (1, 1, 2))
    assert first.class_names == ("ant", "bee")
    assert first.val.paths == again.val.paths != other.val.paths
    assert np.bincount(first.train.labels).tolist() == [3, 3]
    assert not set(first.train.paths) & set(first.val.paths)
    assert all(first.class_names[label] in path for path, label in zip(first.val.paths, first.val.labels, strict=True))


def test_broken_files_are_named_counted_and_skipped_or_refused(folder):
    (folder / "ant" / "page.jpg").write_text("<html>not found</html>")
    whole = (folder / "bee" / "0.jpg").read_bytes()
    (folder / "bee" / "0.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "bee" / ".DS_Store").write_bytes(b"hidden")
    found = scan_folder(folder)
    assert len(found.broken) == 2
    assert "page.jpg" in found.broken[0] and "0.jpg" in found.broken[1]
    assert len(found.train) + len(found.val) == 9
    (folder / "bee" / "0.jpg").write_bytes(whole)
    with pytest.raises(ValueError, match=r"(?s)1 files are not whole.*page\.jpg"):
        scan_folder(folder, on_error="raise")


def test_folders_that_cannot_be_used_say_why(tmp_path, folder):
    with pytest.raises(ValueError, match="There is no folder"):
        scan_folder(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="The folder is empty"):
        scan_folder(tmp_path / "empty")
    with pytest.raises(ValueError, match="found none, but 5 files"):
        scan_folder(folder / "ant")
    (tmp_path / "one" / "ant").mkdir(parents=True)
    with pytest.raises(ValueError, match="found none; without pictures: ant"):
        scan_folder(tmp_path / "one")
    (tmp_path / "one" / "bee").mkdir()
    picture().save(tmp_path / "one" / "ant" / "0.png")
    with pytest.raises(ValueError, match="found only one, 'ant'; without pictures: bee"):
        scan_folder(tmp_path / "one")
    (tmp_path / "one" / "bee" / "0.png").write_text("<html>")
    with pytest.raises(ValueError, match="no readable picture of the class 'bee'"):
        scan_folder(tmp_path / "one")


def test_names_that_mean_nothing_are_refused_with_the_near_ones(tmp_path):
    assert {"digits", "cifar10", "tf_flowers", "imagenet2012"} <= set(known_datasets())
    with pytest.raises(ValueError, match="cifar10"):
        load("cifar_10", image_size=32)
    for folder in ("./absent", "./digits"):
        with pytest.raises(ValueError, match=f"There is no folder {folder}"):
            load(folder, image_size=32)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="Received a file"):
        load(tmp_path / "file", image_size=32)


@pytest.mark.parametrize(
    "wrong",
    [{"image_size": 0}, {"batch_size": 0}, {"augment": "lots"}, {"augment": ("crop", "none")}, {"validation_split": 1}],
)
def test_wrong_arguments_are_named(folder, wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"`{name}`"):
        load(folder, **{"image_size": 32, **wrong})


EVERYTHING = ("crop_flip", "rand_augment", "random_erasing", "mix_up", "cut_mix")


def test_data_sets_that_need_an_absent_network_fail_at_once(tmp_path, monkeypatch):
    import keras_mobilenets.data.sources as sources

    monkeypatch.setattr(sources, "_answers", lambda url: False)
    with pytest.raises(ValueError, match=r"no answer from www\.cs\.toronto\.edu"):
        load("cifar10", image_size=32, data_dir=tmp_path)
    assert sources._root("https://example.org/a/b?c") == "https://example.org"


def test_no_answer_is_found_out_without_a_network():
    from keras_mobilenets.data.sources import _answers

    assert not _answers("http://127.0.0.1:9")  # the discard port: nobody listens


def test_data_sets_without_pictures_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'titanic' does not hold pictures"):
        load("titanic", image_size=32, data_dir=tmp_path)


def test_bundled_digits_are_a_registered_data_set(tmp_path):
    data = load("digits", image_size=32, batch_size=64, data_dir=tmp_path)
    assert data.class_names == tuple("0123456789")
    assert (data.train_count, data.val_count, data.augment) == (1438, 359, ("crop",))
    labels = np.concatenate([labels for _, labels in data.val])
    assert (np.bincount(labels) >= 34).all()  # a fifth of each of ten nearly equal classes
    images, _ = next(iter(data.val))
    assert images.dtype == np.uint8 and images.shape == (64, 32, 32, 3)
    import tensorflow_datasets as tfds

    assert tfds.load("digits", split="test", data_dir=tmp_path).cardinality() == 359


@pytest.mark.parametrize("kind", ["tfrecord", "array_record"])
def test_what_tfds_prepared_is_found_by_its_folder(tmp_path, kind):
    from keras_mobilenets.data import Digits

    builder = Digits(data_dir=tmp_path, file_format=kind)
    builder.download_and_prepare()
    data = load(builder.data_path, image_size=8, batch_size=64)
    assert (data.class_names, data.train_count, data.val_count) == (tuple("0123456789"), 1438, 359)
    from sklearn.datasets import load_digits

    known = {bytes(image) for image in np.round(load_digits().images * (255 / 16)).astype(np.uint8)}
    images, labels = next(data.val.as_numpy_iterator())
    assert all(image[..., 0].tobytes() in known for image in images) and len(set(labels)) == 10


@pytest.fixture
def pixels():
    return np.stack([np.asarray(picture(32, 32, seed=seed)) for seed in range(10)]), np.arange(10) % 2


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("kind", ["encoded", "uint8", "float32"])
def test_any_dataset_of_pictures_can_be_used(pixels, kind, batched):
    import tensorflow as tf

    images, labels = pixels
    given = [encoded(Image.fromarray(image), "PNG") for image in images] if kind == "encoded" else images.astype(kind)
    dataset = tf.data.Dataset.from_tensor_slices((given, labels.astype(np.int32)))
    dataset = dataset.batch(4) if batched else dataset
    data = load((dataset, dataset), image_size=32, batch_size=5, class_names=["a", "b"])
    assert (data.class_names, data.train_count, data.augment) == (("a", "b"), 10, ("crop_flip",))
    found = [np.concatenate(part) for part in zip(*data.val.as_numpy_iterator(), strict=True)]
    assert np.array_equal(found[0], images) and np.array_equal(found[1], labels)
    drawn = load(dataset, image_size=32, batch_size=4, validation_split=0.3, augment="none")
    assert (drawn.class_names, drawn.train_count, drawn.val_count) == (("0", "1"), 7, 3)
    both = [image.tobytes() for part in (drawn._train, drawn._val) for image in _pictures(part)]
    assert sorted(both) == sorted(image.tobytes() for image in images)  # each once, here or there
    cropped, _ = next(data.train_from(0).as_numpy_iterator())
    assert cropped.shape == (5, 32, 32, 3) and 25 < cropped.max() <= 255


def _pictures(source):
    from keras_mobilenets.data.images import read_pixels

    return [read_pixels(source.read(item).numpy()) for item, _, _ in source.examples]


def test_datasets_that_cannot_be_used_say_why(pixels, folder):
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(pixels)
    with pytest.raises(ValueError, match="must have an end"):
        load(dataset.repeat(), image_size=32)
    with pytest.raises(ValueError, match="`class_names` must name all classes. Received: 1 names, a label 1"):
        load(dataset, image_size=32, class_names=["one"])
    with pytest.raises(ValueError, match="`class_names` are for a `tf.data.Dataset`"):
        load(folder, image_size=32, class_names=["one", "two"])


@pytest.mark.parametrize("augment", slow_but(["auto", [*EVERYTHING]], "auto"), ids=["light", "everything"])
def test_epochs_depend_on_their_number_alone(folder, augment):
    data = load(folder, image_size=16, batch_size=4, seed=3, augment=augment)
    stream = data.train_from(0).as_numpy_iterator()
    uninterrupted = [next(stream) for _ in range(3 * data.steps_per_epoch)]
    resumed = next(data.train_from(2).as_numpy_iterator())
    expected = uninterrupted[2 * data.steps_per_epoch]
    assert np.array_equal(resumed[0], expected[0]) and np.array_equal(resumed[1], expected[1])
    assert not np.array_equal(uninterrupted[0][0], expected[0])
    train = data.train
    passes = [np.concatenate([images for images, _ in train]) for _ in range(2)]
    assert passes[0].shape == (8, 16, 16, 3) and not np.array_equal(*passes)


def test_mixed_pictures_have_a_share_of_each_class(tmp_path):
    """One class is black, one white: how bright a mixed picture is says what its label must be."""
    for name, colour in (("black", "black"), ("white", "white")):
        (tmp_path / name).mkdir()
        for index in range(20):
            Image.new("RGB", (32, 32), colour).save(tmp_path / name / f"{index}.png")
    for mix in ("mix_up", "cut_mix"):
        data = load(tmp_path, image_size=32, batch_size=16, augment=("none", mix))
        images, labels = next(data.train_from(0).as_numpy_iterator())
        assert data.soft_labels and labels.shape == (16, 2)
        # Keras cuts at whole pixels, but weighs the box before it was rounded: up to a row and a column of 32.
        assert np.allclose(images.mean((1, 2, 3)) / 255, labels[:, 1], atol=1e-4 if mix == "mix_up" else 0.07)
        assert ((labels > 0.01) & (labels < 0.99)).any()
        assert next(data.val.as_numpy_iterator())[1].dtype == np.int64


def test_a_fifth_of_the_pictures_is_erased_in_part(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for index in range(50):
            Image.new("RGB", (32, 32), "red").save(tmp_path / name / f"{index}.png")
    data = load(tmp_path, image_size=32, batch_size=80, augment=("none", "random_erasing"))
    images = next(data.train_from(0).as_numpy_iterator())[0]
    changed = (images != (255, 0, 0)).any(-1).mean((1, 2))
    assert 0.05 <= (changed > 0).mean() <= 0.4  # 16 of 80 are expected; three standard deviations are 11
    assert changed.max() < 0.5


@pytest.mark.slow
def test_rand_augment_changes_most_pictures_and_not_their_labels(folder):
    plain, changed = (
        load(folder, image_size=32, batch_size=8, augment=augment).train_from(0).as_numpy_iterator()
        for augment in ("none", ("none", "rand_augment"))
    )
    (before, labels), (after, same) = next(plain), next(changed)
    assert np.array_equal(labels, same)
    assert after.dtype == np.float32 and after.min() >= 0 and after.max() <= 255
    assert sum(not np.array_equal(*pair) for pair in zip(before, after, strict=True)) >= 4


@pytest.mark.slow
def test_mixed_pictures_are_trained_on(folder):
    import keras

    from keras_mobilenets.training import fit

    model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")])
    data = load(folder, image_size=16, batch_size=4, augment=EVERYTHING, preprocess=lambda images: images / 255)
    history = fit(model, data, epochs=1)
    images, labels = next(data.val.as_numpy_iterator())
    right = model.predict_on_batch(images).argmax(-1) == labels
    assert history.history["val_accuracy"][0] == pytest.approx(right.mean())


def test_batches_are_preprocessed_and_counted(folder):
    plain = load(folder, image_size=16, batch_size=4)
    scaled = load(folder, image_size=16, batch_size=4, preprocess=lambda images: images / 127.5 - 1)
    assert plain.train.cardinality() == plain.steps_per_epoch == 2
    for before, after in ((plain.val, scaled.val), (plain.train, scaled.train)):
        images, labels = next(iter(before))
        expected = np.asarray(images, np.float32) / 127.5 - 1
        found, same_labels = next(iter(after))
        # TensorFlow may divide by multiplying with the inverse: one rounding apart.
        assert np.allclose(found, expected, atol=1e-6) and np.array_equal(labels, same_labels)


def test_image_size_follows_the_pictures(folder):
    assert load(folder).image_size == (32, 32)
    for path in folder.rglob("*.jpg"):
        picture(100, 120).save(path)
    assert load(folder).image_size == (160, 160)


def test_thumbnails_are_shifted_and_photographs_cropped(folder):
    """A white thumbnail shows the black that it was moved away from; of a photograph, only parts of it are shown."""
    for path in folder.rglob("*.jpg"):
        Image.new("RGB", (32, 32), "white").save(path)
    images, _ = next(iter(load(folder, image_size=32, batch_size=8).train))
    dark_rows = [int((image[:, 16, 0] < 128).sum()) for image in np.asarray(images)]
    assert max(dark_rows) in (1, 2)  # a sixteenth of 32 pixels at most
    for path in folder.rglob("*.jpg"):
        Image.new("RGB", (100, 100), "white").save(path)
    images, _ = next(iter(load(folder, image_size=32, batch_size=8).train))
    assert np.asarray(images).min() > 250


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif"])
def test_training_and_evaluation_decode_alike(tmp_path, kind):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for index in range(2):
            picture(32, 32, seed=index).save(tmp_path / name / f"{index}.{kind}")
    data = load(tmp_path, image_size=32, batch_size=2, augment="none", validation_split=0.5)
    cropped = load(tmp_path, image_size=32, batch_size=2, augment="crop", validation_split=0.5).train
    for (exact, labels), (near, _) in zip(data.train, cropped, strict=True):
        assert exact.dtype == near.dtype == np.float32
        assert sorted(labels.numpy()) == [0, 1]
        # A crop moves the picture by a few pixels: the mean stays near, a wrong decoder (channels, range) would not.
        assert abs(float(np.mean(exact)) - float(np.mean(near))) < 25


def test_decoders_give_the_same_pixels(tmp_path):
    import tensorflow as tf

    data = encoded(picture(70, 90), "JPEG", quality=90)
    exact = tf.io.decode_and_crop_jpeg(data, [3, 5, 40, 50], channels=3, dct_method="INTEGER_ACCURATE")
    assert np.array_equal(exact, np.asarray(Image.open(io.BytesIO(data)))[3:43, 5:55])


def test_reading_pictures_needs_no_tensorflow():
    code = (
        "import sys; from keras_mobilenets.data import read_image, scan_folder; assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
