"""Pictures with boxes: every form of them is read alike, what is wrong is told, and what is cut keeps its boxes."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_mobilenets.data import box_views as views
from keras_mobilenets.data import load_detection, scan_boxes
from keras_mobilenets.tasks import Detection, anchor_coverage

WIDTH, HEIGHT = 40, 20
NAMES = ("ant", "bee")
BOXES = {  # by picture: class and (left, top, right, bottom) in pixels
    "one": [("bee", (4, 2, 20, 12)), ("ant", (10, 5, 40, 20))],
    "two": [("ant", (0, 0, 8, 10))],
    "none": [],
}


def rel_yxyx(box):
    left, top, right, bottom = box
    return [top / HEIGHT, left / WIDTH, bottom / HEIGHT, right / WIDTH]


def write_pictures(folder, names=BOXES):
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        Image.new("RGB", (WIDTH, HEIGHT), (40 * index, 90, 10)).save(folder / f"{name}.png")
    return folder


def write_coco(root, boxes=BOXES, **more):
    write_pictures(root / "images", boxes)
    images = [{"id": 7 + i, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for i, n in enumerate(boxes)]
    rows = [
        {"id": 1, "image_id": 7 + index, "category_id": 3 + NAMES.index(name), "iscrowd": 0}
        | {"bbox": [left, top, right - left, bottom - top]}
        for index, some in enumerate(boxes.values())
        for name, (left, top, right, bottom) in some
    ]
    names = [{"id": 0, "name": "background"}, *({"id": 3 + i, "name": name} for i, name in enumerate(NAMES))]
    (root / "labels.json").write_text(json.dumps({"images": images, "annotations": rows, "categories": names, **more}))


def voc(name, rows, size=(WIDTH, HEIGHT)):
    objects = "".join(
        f"<object><name>{label}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
        "</object>"
        for label, (a, b, c, d) in rows
    )
    width, height = size
    size = f"<size><width>{width}</width><height>{height}</height></size>"
    return f"<annotation><filename>{name}.jpg</filename>{size}{objects}</annotation>"


def write_voc(root, boxes=BOXES, **options):
    write_pictures(root / "JPEGImages", boxes)
    (root / "Annotations").mkdir()
    for name, rows in boxes.items():
        (root / "Annotations" / f"{name}.xml").write_text(voc(name, rows, **options))


def write_yolo(root, with_yaml):
    write_pictures(root / "images")
    (root / "labels").mkdir()
    for name, rows in BOXES.items():
        lines = []
        for label, (left, top, right, bottom) in rows:
            center = (left + right) / 2 / WIDTH, (top + bottom) / 2 / HEIGHT
            lines.append([NAMES.index(label), *center, (right - left) / WIDTH, (bottom - top) / HEIGHT])
        if rows:
            (root / "labels" / f"{name}.txt").write_text("\n".join(" ".join(map(str, line)) for line in lines))
    if with_yaml:
        (root / "data.yaml").write_text("train: ../images\nval: images\nnc: 2\nnames: {0: ant, 1: bee}\n")
    else:
        (root / "classes.txt").write_text("ant\nbee\n")


def write_csv(root):
    write_pictures(root / "pictures")
    rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for name, some in BOXES.items():
        rows += [f"{name}.png,{WIDTH},{HEIGHT},{label},{','.join(map(str, box))}" for label, box in some]
        rows += [] if some else [f"{name}.png,{WIDTH},{HEIGHT},,,,,"]
    (root / "boxes.csv").write_text("\n".join(rows))


FORMS = {
    "COCO": write_coco,
    "Pascal VOC": write_voc,
    "YOLO": lambda root: write_yolo(root, False),
    "YOLO with data.yaml": lambda root: write_yolo(root, True),
    "CSV": write_csv,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_the_same(form, tmp_path):
    FORMS[form](tmp_path)
    found = scan_boxes(tmp_path, seed=3)
    assert found.kind == form.split()[0].replace("Pascal", "Pascal VOC") and found.class_names == NAMES
    assert not found.broken or "no box to train on" in found.broken[0]  # of three pictures, one is held out
    splits = (found.train,) if "yaml" in form else (found.train, found.val)
    by_name = {
        path.rpartition("/")[2].removesuffix(".png"): (split.rel_yxyx[index], split.labels[index])
        for split in splits
        for index, path in enumerate(split.paths)
    }
    assert set(by_name) == set(BOXES)
    for name, rows in BOXES.items():
        boxes, labels = by_name[name]
        real = labels >= 0
        assert [NAMES[label] for label in labels[real]] == [label for label, _ in rows]
        # Shares of at most 40 pixels, in float32; YOLO writes them in decimals.
        np.testing.assert_allclose(boxes[real], np.reshape([rel_yxyx(box) for _, box in rows], (-1, 4)), atol=1e-6)


WRONG = {
    "no area": ((5, 5, 5, 9), "no area"),
    "reversed": ((9, 5, 5, 9), "its sides reversed"),
    "outside": ((50, 5, 60, 9), "nothing inside of the picture"),
    "no number": (("?", 5, 6, 9), "sides that are no numbers"),
    "not finite": (("nan", 5, 6, 9), "sides that are no numbers"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_boxes_are_left_out_and_told(kind, tmp_path):
    box, text = WRONG[kind]
    write_voc(tmp_path, {**BOXES, "two": [*BOXES["two"], ("ant", box)]})
    found = scan_boxes(tmp_path)
    assert sum((split.labels >= 0).sum() for split in (found.train, found.val)) == 3
    (line,) = [one for one in found.broken if "two.xml" in one]
    assert f"a box of ant with {text}" in line
    with pytest.raises(ValueError, match="1 boxes or pictures are left out"):
        scan_boxes(tmp_path, on_error="raise")


def test_wrong_pictures_and_annotations_are_told(tmp_path):
    write_voc(tmp_path, {**BOXES, "broken": BOXES["two"], "absent": BOXES["two"], "cut": BOXES["two"]})
    (tmp_path / "JPEGImages" / "broken.png").write_text("<html>")
    (tmp_path / "JPEGImages" / "absent.png").unlink()
    (tmp_path / "Annotations" / "cut.xml").write_text("<annotation>")
    (tmp_path / "Annotations" / "two.xml").write_text(voc("two", BOXES["two"], size=(99, 20)))
    (tmp_path / "Annotations" / "none.xml").write_text(voc("none", [], size=(0, 0)))  # width 0 says nothing
    text = "\n".join(scan_boxes(tmp_path).broken)
    for part in ("cut.xml: not whole XML", "broken.png: not a picture", "there is no picture absent", "says 99 x 20"):
        assert part in text
    assert "none" not in text.replace("no box to train on", "")


def test_crowds_unknown_classes_and_empty_categories(tmp_path):
    write_coco(tmp_path, BOXES, annotations=[
        {"image_id": 7, "category_id": 3, "bbox": [0, 0, 4, 4], "iscrowd": 1},
        {"image_id": 7, "category_id": 3, "bbox": [0, 0, 4, 4]},
        {"image_id": 8, "category_id": 3, "bbox": [-2, 0, 4, 4]},
        {"image_id": 9, "category_id": 3, "bbox": [0, 0, 8, 4]},
        {"image_id": 9, "category_id": 99, "bbox": [0, 0, 4, 4]},
        {"image_id": 55, "category_id": 3, "bbox": [0, 0, 4, 4]},
    ])  # fmt: skip
    found = scan_boxes(tmp_path)
    labels = np.concatenate([found.train.labels.ravel(), found.val.labels.ravel()])
    assert sorted(labels[labels != -1]) == [-2, 0, 0, 0]
    assert min(found.train.rel_yxyx.min(), found.val.rel_yxyx.min()) == 0  # cut
    text = "\n".join(found.broken)
    for part in ("a box of 99 with an unknown class", "the image 55, which is not listed", "bee: no box to train on"):
        assert part in text
    evaluated = scan_boxes(tmp_path, class_names=["ant"])
    assert evaluated.class_names == ("ant",)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("stored", [False, True])
def test_boxes_turn_with_the_picture(orientation, stored, tmp_path):
    """A white block, annotated as the picture lies in the file or as it is seen; tools do either."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[2:12, 4:20] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(pixels)
    (tmp_path / "images").mkdir()
    image.save(tmp_path / "images" / "one.png", exif=exif)
    image.save(tmp_path / "images" / "two.png", exif=exif)
    turned = orientation > 4
    data = load_detection(_annotated(tmp_path, orientation, stored and turned), image_size=(80, 80), batch_size=1)
    images, targets = next(iter(data.val))
    white = np.argwhere(images[0].numpy()[..., 0] > 127) / 80
    found = targets["boxes"][0, 0].numpy()
    # The block's border is blurred over 2 of 80 pixels by the stretching.
    np.testing.assert_allclose(found, [*white.min(0), *(white.max(0) + 1 / 80)], atol=2.5 / 80)


def _annotated(root, orientation, stored):
    with Image.open(root / "images" / "one.png") as image:
        from PIL import ImageOps

        seen = image if stored else ImageOps.exif_transpose(image)
        white = np.argwhere(np.asarray(seen.convert("L")) > 127)
        (top, left), (bottom, right) = white.min(0), white.max(0) + 1
        size = image.size if stored else seen.size
    (root / "xml").mkdir()
    for name in ("one", "two"):
        (root / "xml" / f"{name}.xml").write_text(voc(name, [("block", (left, top, right, bottom))], size=size))
    return root


def test_folders_that_hold_no_boxes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="There is no folder"):
        scan_boxes(tmp_path / "absent")
    with pytest.raises(ValueError, match="There is no picture"):
        scan_boxes(tmp_path)
    write_pictures(tmp_path / "images")
    with pytest.raises(ValueError, match="found only pictures"):
        scan_boxes(tmp_path)
    (tmp_path / "notes.json").write_text("{}")
    with pytest.raises(ValueError, match="COCO JSON, Pascal VOC XML, YOLO text or a CSV"):
        scan_boxes(tmp_path)
    write_csv(tmp_path)
    with pytest.raises(ValueError, match="`augment` must be of auto, none, crop"):
        load_detection(tmp_path, augment="mix_up")


def examples(box_format):
    """Of a dataset that gives them in a form of Keras."""
    for rows in BOXES.values():
        boxes = np.array([box for _, box in rows], "float32").reshape(-1, 4)
        if "xywh" in box_format:
            boxes[:, 2:] -= boxes[:, :2]
        if box_format == "center_xywh":
            boxes[:, :2] += boxes[:, 2:] / 2
        boxes = boxes[:, [1, 0, 3, 2]] if "yxyx" in box_format else boxes
        boxes = boxes / np.tile([HEIGHT, WIDTH], 2) if box_format == "rel_yxyx" else boxes
        yield {
            "image": np.full((HEIGHT, WIDTH, 3), len(rows), np.uint8),
            "boxes": boxes.astype("float32"),
            "labels": np.array([NAMES.index(name) for name, _ in rows], "int64"),
        }


@pytest.mark.parametrize("box_format", ["rel_yxyx", "yxyx", "xyxy", "xywh", "center_xywh"])
def test_any_dataset_of_boxes(box_format):
    signature = {
        "image": tf.TensorSpec((HEIGHT, WIDTH, 3), tf.uint8),
        "boxes": tf.TensorSpec((None, 4), tf.float32),
        "labels": tf.TensorSpec((None,), tf.int64),
    }
    given = tf.data.Dataset.from_generator(lambda: examples(box_format), output_signature=signature)
    given = given.apply(tf.data.experimental.assert_cardinality(3))
    data = load_detection((given, given), box_format=box_format, class_names=NAMES, image_size=32, batch_size=3)
    images, targets = next(iter(data.val))
    assert targets["boxes"].shape == (3, 2, 4) and targets["labels"].numpy().tolist() == [[1, 0], [0, -1], [-1, -1]]
    expected = [rel_yxyx(box) for rows in BOXES.values() for _, box in rows]
    np.testing.assert_allclose(targets["boxes"].numpy()[targets["labels"] >= 0], expected, atol=1e-6)
    assert images.dtype == tf.uint8 and data.train_count == data.val_count == 3


def test_the_bundled_canvases_are_a_detection_data_set():
    data = load_detection(batch_size=16)
    assert (data.train_count, data.val_count, data.image_size) == (640, 120, (128, 128))
    images, targets = next(iter(data.train_from(2, 1)))
    again = next(iter(data.train_from(2, 1)))
    np.testing.assert_array_equal(images, again[0])
    np.testing.assert_array_equal(targets["boxes"], again[1]["boxes"])
    coverage = data.targets(50)
    lines = Detection(10, image_size=(128, 128)).examine(coverage)
    assert "boxes" in lines[0] and "anchors overlap" in lines[1]


def test_crops_keep_the_boxes_that_they_keep(rng):
    boxes, labels = np.array([[0.1, 0.2, 0.5, 0.6], [0.6, 0.1, 0.9, 0.3], [0, 0, 0, 0]], "float32"), [0, 1, -1]
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[10:50, 20:60], picture[60:90, 10:30] = (255, 0, 0), (0, 255, 0)
    view = views.BoxView((100, 100), ("crop", "zoom_out", "flip"))
    target = {"boxes": tf.constant(boxes), "labels": tf.constant(labels)}
    cut = 0
    for seed in range(40):
        image, found = view.training(tf.constant(picture), target, tf.constant(False), tf.constant([seed, 1]))
        kept = found["labels"].numpy()
        assert set(kept) <= {0, 1, -1} and kept[2] == -1
        cut += not np.array_equal(image, picture)
        for box, label in zip(found["boxes"].numpy(), kept, strict=True):
            if label < 0:
                assert not box.any() or label == -1
                continue
            assert (box >= 0).all() and (box <= 1).all() and (box[2:] > box[:2]).all()
            # The colour of its class fills the box, but for a border of 3 of 100 pixels.
            top, left, bottom, right = np.rint(box * 100).astype(int)
            inside = image.numpy()[top + 3 : bottom - 3, left + 3 : right - 3]
            assert inside.size == 0 or (inside[..., label] > 200).mean() > 0.95
    assert cut > 20  # else nothing is augmented


def test_coverage_tells_which_boxes_no_anchor_finds():
    anchors = Detection(1, image_size=(320, 320)).anchors_of_image()
    found = anchor_coverage(np.array([[0.4, 0.4, 0.6, 0.6], [0.5, 0.5, 0.51, 0.51]]), anchors)
    assert found[0] > 0.5 and found[1] < 0.1
