"""Folders of pictures and masks: every usual layout and form is read, what is wrong is said in one sentence."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_mobilenets.data import load_segmentation, scan_masks
from keras_mobilenets.data.mask_view import MaskView
from keras_mobilenets.data.masks import legend
from keras_mobilenets.loaders import LOADERS

MASK = np.array([[0, 0, 1, 1], [0, 2, 2, 255], [0, 2, 2, 255]], np.uint8)
COLORS = {"sky": (128, 128, 128), "road": (128, 64, 128), "car": (64, 0, 128)}
COLORED = np.array([*COLORS.values(), *[(0, 0, 0)] * 253], np.uint8)[MASK]


def picture(path, mask=MASK, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    if mode == "P":
        image = image.copy()
        image.putpalette(bytes(sum(COLORS.values(), ())) + bytes(759))
    image.save(path)


def photo(path, size=(4, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10, 200, 30)).save(path)


LAYOUTS = {
    "beside": ("images/{split}{n}.png", "masks/{split}{n}.png", False),
    "around": ("{split}/images/a{n}.png", "{split}/masks/a{n}_mask.png", True),
    "inside": ("images/{split}/a{n}.png", "annotations/{split}/a{n}.png", True),
    "SegNet": ("{split}/a{n}.png", "{split}annot/a{n}.png", True),
    "Cityscapes": ("leftImg8bit/{split}/x/a{n}_leftImg8bit.png", "gtFine/{split}/x/a{n}_gtFine_labelIds.png", True),
    "VOC": ("JPEGImages/{split}{n}.png", "SegmentationClass/{split}{n}.png", True),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, tmp_path):
    images, masks, has_splits = LAYOUTS[layout]
    for split, count in (("train", 3), ("val", 2)):
        for n in range(count):
            photo(tmp_path / images.format(split=split, n=n))
            picture(tmp_path / masks.format(split=split, n=n), mode="P" if layout == "VOC" else None)
        if layout == "VOC":
            file = tmp_path / "ImageSets" / "Segmentation" / f"{split}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(f"{split}{n}" for n in range(count)))
    LOADERS["segmentation"].check(str(tmp_path))
    found = scan_masks(tmp_path)
    assert (len(found.train), len(found.val)) == ((3, 2) if has_splits else (4, 1)) and found.broken == ()
    assert found.class_names == ("0", "1", "2") and np.array_equal(found.val.targets[0], MASK)


@pytest.mark.parametrize("form", ["file", "colours", "palette", "grey RGB", "ignored class", "by value"])
def test_forms_of_masks(form, tmp_path):
    options = {}
    mask = COLORED if form == "colours" else np.repeat(MASK[..., None], 3, -1) if form == "grey RGB" else MASK
    for n in range(2):
        photo(tmp_path / f"images/{n}.png")
        picture(tmp_path / f"masks/{n}.png", mask, "P" if form == "palette" else None)
    if form in ("colours", "palette"):
        (tmp_path / "class_dict.csv").write_text(
            "name,r,g,b\n" + "".join(f"{name},{r},{g},{b}\n" for name, (r, g, b) in COLORS.items()) + "void,0,0,0\n"
        )
    elif form == "file":
        (tmp_path / "labels.txt").write_text("sky\nroad\ncar\n")
    elif form == "ignored class":
        options = {"class_names": {0: "sky", 1: "road", 2: "car", 255: "void"}, "ignore": None}
    else:
        options = {"class_names": {2: "car", 0: "sky", 1: "road"}}
    found = scan_masks(tmp_path, **options)
    assert set(found.class_names) == set(COLORS)
    labels = [found.class_names[label] if label != 255 else "-" for label in found.val.targets[0].ravel()]
    assert labels == [[*COLORS][value] if value != 255 else "-" for value in MASK.ravel()]


def test_black_and_white_are_two_classes(tmp_path):
    for n in range(2):
        photo(tmp_path / f"images/{n}.png")
        picture(tmp_path / f"masks/{n}.png", np.where(MASK > 0, 255, 0).astype(np.uint8))
    assert np.array_equal(scan_masks(tmp_path).val.targets[0], MASK > 0)


@pytest.mark.parametrize(
    ("mask", "suffix", "options", "message"),
    [
        (MASK[:2], "png", {}, "is 4 x 2 pixels, its picture .* 4 x 3: a mask must be as large as its picture"),
        (COLORED, "png", {}, "is in colour: say by `colors` which colour each class has"),
        (MASK, "jpg", {}, "is a JPEG, which blurs the values of masks"),
        (MASK, "png", {"class_names": ["sky", "road"]}, "holds 2, which no class has: sky is 0, road is 1. What is"),
        (COLORED, "png", {"colors": COLORS, "ignore": None}, r"holds \(0, 0, 0\), which no class has"),
        (MASK, "png", {"colors": COLORS, "class_names": ["sky"]}, "`class_names` and `colors` both name"),
    ],
)
def test_what_is_wrong_is_said(mask, suffix, options, message, tmp_path):
    for n in range(2):
        photo(tmp_path / f"images/{n}.png")
        picture(tmp_path / f"masks/{n}.{suffix}", mask)
    with pytest.raises(ValueError, match=message):
        scan_masks(tmp_path, **options)


def test_pictures_without_masks_are_left_out_or_refused(tmp_path):
    for n in range(3):
        photo(tmp_path / f"images/{n}.png")
        if n:
            picture(tmp_path / f"masks/{n}.png")
    found = scan_masks(tmp_path)
    assert len(found.train) == len(found.val) == 1 and "there is no mask for it" in found.broken[0]
    with pytest.raises(ValueError, match="no mask"):
        scan_masks(tmp_path, on_error="raise")
    with pytest.raises(ValueError, match="must hold a folder `images` and a folder `masks`"):
        scan_masks(tmp_path / "images")


def test_polygons_of_coco(tmp_path):
    square, runs = [[8, 8, 24, 8, 24, 24, 8, 24]], {"size": [32, 48], "counts": [0, 64, 1472]}
    for split in ("train", "val"):
        photo(tmp_path / split / f"{split}.png", (48, 32))
        content = {
            "images": [{"id": 1, "file_name": f"{split}.png", "width": 48, "height": 32}],
            "categories": [{"id": 7, "name": "box"}, {"id": 3, "name": "tile"}],
            "annotations": [
                {"image_id": 1, "category_id": 3, "segmentation": [[12, 12, 16, 12, 16, 16, 12, 16]], "area": 16},
                {"image_id": 1, "category_id": 7, "segmentation": square, "area": 256},
                {"image_id": 1, "category_id": 3, "segmentation": runs, "area": 64, "iscrowd": 1},
            ],
        }
        (tmp_path / f"instances_{split}2017.json").write_text(json.dumps(content))
    found = scan_masks(tmp_path)
    assert found.class_names == ("background", "tile", "box")
    assert dict(zip(*np.unique(found.val.targets[0], return_counts=True), strict=True)) == {
        0: 32 * 48 - 256 - 64,
        1: 16,  # over the larger one, though it comes first
        2: 240,
        255: 64,
    }


def test_picture_and_mask_move_alike(rng):
    mask = np.kron(rng.integers(0, 5, (6, 8)), np.ones((20, 20))).astype(np.uint8)
    image = np.repeat((mask * 50)[..., None], 3, -1)
    view = MaskView((96, 128), ("crop_flip",), legend([*"abcde"], None, 255))
    seen = set()
    for seed in range(20):
        pixels, labels = view.training(image, mask, True, tf.constant([seed, 1], tf.int64))
        pixels, labels = pixels.numpy()[..., 0], labels.numpy()
        # Interpolated on the edges of areas alone.
        inside = np.isin(pixels, np.arange(5) * 50) & (labels != 255)
        assert (pixels[inside] == labels[inside] * 50).mean() > 0.95 and inside.mean() > 0.2
        assert np.mean([255, *(pixels[labels == 255] == 127)]) > 0.8
        seen.add(pixels.tobytes())
        again, _ = view.training(image, mask, True, tf.constant([seed, 1], tf.int64))
        assert np.array_equal(again[..., 0], pixels)
    assert len(seen) == 20


def test_any_dataset_and_the_bundled_one(rng, tmp_path):
    images, masks = rng.integers(0, 256, (10, 8, 12, 3)).astype(np.uint8), rng.integers(0, 4, (10, 8, 12))
    data = load_segmentation(
        tf.data.Dataset.from_tensor_slices((images / np.float32(255), masks)).batch(4),
        image_size=(8, 12),
        batch_size=4,
        augment="none",
        ignore=3,
    )
    assert (data.class_names, data.train_count, data.val_count) == (("0", "1", "2"), 8, 2)
    pictures, labels = next(iter(data.val))
    place = next(n for n in range(10) if np.array_equal(images[n], pictures[0]))
    assert np.array_equal(np.where(masks[place] == 3, 255, masks[place]), labels[0])
    file = io.BytesIO()
    Image.fromarray(masks[0].astype(np.uint8)).save(file, "PNG")
    encoded = tf.data.Dataset.from_tensors({"image": images[0], "mask": file.getvalue()}).repeat(3)
    assert load_segmentation((encoded, encoded), image_size=8).class_names == ("0", "1", "2", "3")
    with pytest.raises(ValueError, match="holds 3, which no class has"):
        load_segmentation((encoded, encoded), class_names=["a", "b", "c"])
    bundled = load_segmentation(data_dir=tmp_path)
    assert bundled.class_names == ("background", *map(str, range(10))) and bundled.image_size == (128, 128)
    _, labels = next(iter(bundled.val))
    assert 0.6 < (labels.numpy() == 0).mean() < 0.95


def test_what_masks_do_not_follow_is_refused():
    with pytest.raises(ValueError, match="`augment` must be one of auto, none, crop, crop_flip"):
        load_segmentation(augment=("crop", "cut_mix"))
