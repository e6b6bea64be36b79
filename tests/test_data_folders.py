"""Which folders are splits, which are classes, and what is neither."""

import os

import numpy as np
import pytest
from PIL import Image

from keras_mobilenets.data import scan_folder
from keras_mobilenets.data.layout import find_layout, picture_files
from keras_mobilenets.tflite.labels import parse_labels, write_labels


def make(root, *folders, count=2):
    """So many pictures in each of the folders."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            Image.new("RGB", (8, 8), (index, 0, 0)).save(root / folder / f"{index}.png")


SPLITS = ["train val", "Training Testing", "Train Test", "TRAIN TEST", "train valid", "seg_train seg_test", "train dev"]
SPLITS += ["training_set test_set", "Train Images/Test Images", "train2017 val2017", "asl-1_train asl-1_test"]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("names", SPLITS)
def test_splits_are_known_by_any_usual_name(tmp_path, names, nested):
    train, test = names.split("/" if "/" in names else " ")
    inner = (lambda name: f"{name}/{name}") if nested else (lambda name: name)
    make(tmp_path, *(f"{inner(train)}/{name}" for name in ("ant", "bee")), count=3)
    make(tmp_path, *(f"{inner(test)}/{name}" for name in ("ant", "bee")), count=1)
    found = scan_folder(tmp_path)
    assert (found.class_names, len(found.train), len(found.val), found.broken) == (("ant", "bee"), 6, 2, ())


def test_an_unpacked_archive_is_looked_into(tmp_path):
    make(tmp_path, "flowers/rose", "flowers/tulip", "__MACOSX/flowers/rose")
    assert find_layout(tmp_path).class_names == ("rose", "tulip")


@pytest.mark.parametrize("names", [("bullet train", "car"), ("train", "car"), ("test tube", "train", "dog")])
def test_a_class_may_have_the_name_of_a_split(tmp_path, names):
    make(tmp_path, *names)
    assert find_layout(tmp_path).class_names == tuple(sorted(names))


REFUSED = {
    "no folders of classes": (("Train", "Test"), r"holds splits \(Test, Train\) whose pictures are not in folders"),
    "nothing to train on": (("Val/a", "Val/b", "Test/a", "Test/b"), "must hold one split to train on"),
    "classes beside a held-out split": (("a", "b", "Test/a", "Test/b"), "must hold one split to train on"),
    "split or class": (("train/a", "train/b", "car", "plane"), "holds train beside car, plane: a split or a class?"),
    "two to train on": (("train/a", "train/b", "Training/a", "Training/b"), "one split to train on"),
    "unequal classes": (("train/a", "train/b", "test/a", "test/c"), "no class of the training data: c"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_be_misunderstood_is_refused_in_one_sentence(tmp_path, case):
    folders, message = REFUSED[case]
    make(tmp_path, *folders)
    with pytest.raises(ValueError, match=message):
        scan_folder(tmp_path)


def test_what_is_not_read_is_named(tmp_path):
    make(tmp_path, "train/ant", "train/bee", "train/__MACOSX/ant", "val/ant", "test/ant", "test/bee", ".git")
    (tmp_path / "train" / "empty" / "nothing").mkdir(parents=True)
    for number in range(5):
        (tmp_path / "train" / f"loose{number}.JPG").write_bytes(b"beside the classes")
    for name in (".DS_Store", "Thumbs.db", "ant/.DS_Store", "ant/Thumbs.db", "ant/._0.png", "ant/desktop.ini"):
        (tmp_path / "train" / name).write_bytes(b"no picture")
    found = scan_folder(tmp_path)
    assert (found.class_names, len(found.train), len(found.val)) == (("ant", "bee"), 4, 2 - 1 + 1)
    assert [line.removeprefix(str(tmp_path)) for line in found.broken] == [
        "/val: no picture of bee",
        ": not read: .git, test",
        "/train: not read: __MACOSX, empty, loose0.JPG, loose1.JPG and 3 more",
    ]


def test_dangling_links_are_broken_pictures(tmp_path):
    make(tmp_path, "ant", "bee")
    (tmp_path / "ant" / "link.png").symlink_to(tmp_path / "bee" / "0.png")
    (tmp_path / "ant" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "cow").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "ant" / "pipe")  # would never end
    found = scan_folder(tmp_path)
    assert len(found.train) + len(found.val) == 5
    gone, unread = found.broken
    assert gone.endswith("gone.png: No such file or directory") and unread.endswith("not read: cow")
    with pytest.raises(ValueError, match="1 files are not whole pictures"):
        scan_folder(tmp_path, on_error="raise")


def test_names_of_classes_are_those_of_a_label_file(tmp_path):
    """One line of text each, whatever the folder's name holds."""
    make(tmp_path, "a\nb", "c\u2028d", "e")
    (tmp_path / os.fsdecode(b"\xff")).mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / os.fsdecode(b"\xff") / os.fsdecode(b"\xfe.png"))
    found = scan_folder(tmp_path, validation_split=0.5)
    assert found.class_names == ("a b", "c d", "e", "ÿ")
    assert np.bincount(found.train.labels).tolist() == [1, 1, 1, 1]
    assert parse_labels(write_labels(found.class_names)) == list(found.class_names)
    again = scan_folder(tmp_path, class_names=found.class_names)
    assert len(again.train) + len(again.val) == 7
    make(tmp_path, "a b")
    with pytest.raises(ValueError, match="two folders of the same class"):
        scan_folder(tmp_path)


def test_numbered_folders_are_in_the_order_of_their_numbers(tmp_path):
    names = [f"class {letter}" for letter in "kjihgfedcba"]
    make(tmp_path, *(f"{index} {name}" for index, name in enumerate(names)))
    found = scan_folder(tmp_path, validation_split=0.5)
    assert list(found.class_names) == names == parse_labels(write_labels(found.class_names))
    assert all(f"/{label} class" in path for path, label in zip(found.val.paths, found.val.labels, strict=True))


def test_home_is_expanded(tmp_path, monkeypatch):
    make(tmp_path, "flowers/rose", "flowers/tulip")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_layout("~/flowers").class_names == ("rose", "tulip")
    assert len(picture_files("~/flowers")) == 4
    assert len(scan_folder("~/flowers").train) == 2
