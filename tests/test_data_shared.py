"""What a process of several has of the data: its slice of each batch, and nothing else is decoded."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from runs import slow_but

from keras_mobilenets.data import load, load_grain

PROCESSES, BATCH, STEPS = 2, 4, 8


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """18 photographs to train on in 4 batches of 4, 6 held out in one of 4 and one of 2."""
    folder = tmp_path_factory.mktemp("noise")
    for part, count in (("train", 9), ("val", 3)):
        for label, name in enumerate(("ant", "bee")):
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                noise = np.random.default_rng((label, index, count)).integers(0, 256, (80, 90, 3), np.uint8)
                Image.fromarray(noise).save(folder / part / name / f"{index}.jpg")
    return folder


class Counted:
    """Records that count how often they are read."""

    def __init__(self, records):
        self.records, self.reads = records, 0

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        self.reads += 1
        return self.records[index]


def counted_source(source):
    counts = []

    def read(item):
        return tf.ensure_shape(
            tf.numpy_function(lambda data: (counts.append(1), data)[1], [source.read(item)], tf.string), ()
        )

    return dataclasses.replace(source, read=read), counts


def taken(batches, steps=None):
    return [tuple(np.asarray(part) for part in batch) for batch in itertools.islice(batches, steps)]


def check_slices(whole, shares, size_of):
    for number, batch in enumerate(whole):
        size = size_of(len(batch[0]))
        for process, share in enumerate(shares):
            for mine, all_of_it in zip(share[number], batch, strict=True):
                assert np.array_equal(mine, all_of_it[process * size : (process + 1) * size])


@pytest.mark.parametrize(
    "augment", slow_but(["crop_flip", ["crop", "rand_augment"], ["crop", "random_erasing", "mix_up"]], "crop_flip")
)
def test_shares_are_slices_of_the_whole_batches(pictures, augment):
    data = load(pictures, image_size=16, batch_size=BATCH, augment=augment, seed=3)
    shares = [data.shared(process, PROCESSES) for process in range(PROCESSES)]
    parts = [taken(share.train_from(2, 1), STEPS) for share in shares]  # the last batches are of the epoch after
    check_slices(taken(data.train_from(2, 1), STEPS), parts, lambda count: count // PROCESSES)
    check_slices(taken(data.val), [taken(share.val) for share in shares], lambda count: count // PROCESSES)
    assert [share.steps_per_epoch for share in shares] == [4, 4]


def test_what_does_not_go_around_is_left_out(pictures):
    data = load(pictures, image_size=16, batch_size=3, augment="none")
    shares = [data.shared(process, 3) for process in range(3)]
    check_slices(taken(data.val), [taken(share.val) for share in shares], lambda count: count // 3)
    five = load(pictures, image_size=16, batch_size=5)  # 6 held out: the last batch has one
    assert [len(taken(five.shared(process, 5).val)) for process in range(5)] == [1] * 5


def test_a_share_decodes_nothing_else(pictures):
    data = load(pictures, image_size=16, batch_size=BATCH)
    reads = []
    for share in (data, data.shared(0, PROCESSES), data.shared(1, PROCESSES)):
        source, counts = counted_source(data._val)
        taken(dataclasses.replace(share, _val=source).val)
        reads.append(len(counts))
    assert reads == [6, 3, 3]
    source, counts = counted_source(data._train)
    epoch = dataclasses.replace(data.shared(1, PROCESSES), _train=source)._batches(tf.data.Dataset.range(1))
    assert len(taken(epoch)) == 4 and len(counts) == 8  # of 18


@pytest.mark.needs("grain")
def test_grain_shares_alike(pictures):
    data = load_grain(pictures, image_size=16, batch_size=BATCH, seed=3)
    shares = [data.shared(process, PROCESSES) for process in range(PROCESSES)]
    parts = [taken(share.train_from(2, 1), STEPS) for share in shares]
    check_slices(taken(data.train_from(2, 1), STEPS), parts, lambda count: count // PROCESSES)
    check_slices(taken(data.val), [taken(share.val) for share in shares], lambda count: count // PROCESSES)
    records = Counted(data._val)
    assert len(taken(dataclasses.replace(shares[1], _val=records).val)) == 2 and records.reads == 3
