"""The input pipeline that does without TensorFlow."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_mobilenets.data import Digits, load, load_grain

pytest.importorskip("grain")
pytestmark = pytest.mark.needs("grain")

GRAIN = """
import sys
import numpy as np
from keras_mobilenets.data import load_grain
data = load_grain(sys.argv[1], image_size=16, batch_size=4, seed=3, preprocess=lambda images: images / 255)
steps = data.steps_per_epoch
stream = iter(data.train_from(0))
batches = [next(stream) for _ in range(3 * steps)]
resumed = next(iter(data.train_from(2, 1)))
assert all(np.array_equal(*pair) for pair in zip(resumed, batches[2 * steps + 1]))
assert not np.array_equal(batches[0][0], batches[steps][0])
assert batches[0][0].shape == (4, 16, 16, 3) and batches[0][0].dtype == np.float32 and batches[0][0].max() <= 1
assert sum(len(labels) for _, labels in data.val) == data.val_count > 0
assert "tensorflow" not in sys.modules
"""


@pytest.fixture
def pictures(tmp_path):
    """Photographs of two classes: 12 to train on, 5 held out."""
    for part, count in (("train", 6), ("val", 3)):
        for label, name in enumerate(("ant", "bee")):
            (tmp_path / "noise" / part / name).mkdir(parents=True)
            for index in range(count - label * (part == "val")):
                noise = np.random.default_rng((label, index)).integers(0, 256, (40, 60, 3), np.uint8)
                Image.fromarray(noise).save(tmp_path / "noise" / part / name / f"{index}.jpg")
    return tmp_path / "noise"


def test_a_folder_is_read_without_tensorflow(pictures):
    subprocess.run([sys.executable, "-c", GRAIN, pictures], check=True)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"image_size": -8}, {"image_size": (8, 8, 3)}])
def test_sizes_are_refused_alike(wrong, tmp_path):
    for read in (load, load_grain):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be"):
            read(tmp_path, **{"image_size": 8, **wrong})


def test_what_tfds_prepared_is_read_alike(tmp_path):
    with pytest.raises(ValueError, match="Prepare it once: tfds.builder"):
        load_grain("digits", image_size=8, data_dir=tmp_path)
    builder = Digits(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    theirs = load(builder.data_path, image_size=8, batch_size=64)
    for data in (str(builder.data_path), "digits"):
        ours = load_grain(data, image_size=8, batch_size=64, data_dir=tmp_path)
        assert (ours.class_names, ours.train_count, ours.augment) == (theirs.class_names, 1438, ("crop",))
        for mine, other in zip(ours.val, theirs.val.as_numpy_iterator(), strict=True):
            assert np.array_equal(mine[0], other[0]) and np.array_equal(mine[1], other[1])
