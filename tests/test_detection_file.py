"""A detector's file: boxes chosen inside, or what decodes them in the metadata; both answer as the task does."""

import dataclasses

import keras
import numpy as np
import pytest
from export_models import images, living
from runs import slow_but

from keras_mobilenets import SSD300, SSDLite
from keras_mobilenets.export import export_tflite
from keras_mobilenets.quantization import calibrate, quantize_model
from keras_mobilenets.tasks import Detection, task_of
from keras_mobilenets.tflite import TFLiteModel, read_tflite
from keras_mobilenets.tflite.edit.answers import POSTPROCESS, RESULTS, add_argmax
from keras_mobilenets.tflite.edit.slim import pack
from keras_mobilenets.tflite.file import schema, unpack
from keras_mobilenets.tflite.mediapipe import DETECTOR, read_detector_anchors

pytestmark = pytest.mark.usefixtures("eagerly")

SIZE = 64
LABELS = ["cat", "dog", "owl"]
PIXELS = np.rint((images(4, SIZE) + 1) * 127.5).astype(np.uint8)
MODELS = {"sigmoid": (SSDLite, "MobileNetV2", 0.35), "softmax": (SSD300, "MobileNet", 0.25)}


@pytest.fixture(scope="module", params=slow_but(MODELS, "softmax"))
def detector(request):
    builder, backbone, alpha = MODELS[request.param]
    background = request.param == "softmax"
    options = {"classes": 3, "alpha": alpha, "background": background, "backbone_weights": None}
    keras.utils.set_random_seed(0)
    model = living(builder(backbone, (SIZE, SIZE, 3), **options), images(32, SIZE))
    return model, Detection(3, image_size=(SIZE, SIZE), background=background, alpha=alpha)


@pytest.fixture(scope="module")
def files(detector, tmp_path_factory):
    """Both forms, in float32."""
    model, task = detector
    folder, found = tmp_path_factory.mktemp("files"), []
    for decoded in (True, False):
        path = folder / f"{decoded}.tflite"
        report = export_tflite(model, path, task=task, decoded=decoded, labels=LABELS, verbose=False)
        assert report.parity.agreement == 1.0 and report.labels == 3
        found.append(path)
    return found


def test_both_forms_answer_as_the_task(detector, files):
    model, task = detector
    chosen, raw = (TFLiteModel(path) for path in files)
    assert (chosen.output_names, raw.output_names) == (RESULTS, task.outputs)
    inside, outside = (task.decode(one.predict(PIXELS)) for one in (chosen, raw))
    by_keras = task.decode({name: np.asarray(one) for name, one in model(PIXELS / np.float32(127.5) - 1).items()})
    for one, other, third in zip(inside, outside, by_keras, strict=True):
        assert 0 < len(one["labels"]) == len(third["labels"])
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name], err_msg=name)  # the kernel's own arithmetic
            np.testing.assert_allclose(np.sort(values, 0), np.sort(third[name], 0), atol=1e-4)  # float32, exp
    assert task.agreement(inside, by_keras).tolist() == [1.0] * len(PIXELS)


def test_metadata_say_what_mediapipe_asks_for(detector, files):
    _, task = detector
    chosen, raw = map(read_tflite, files)
    assert [one.name for one in chosen.outputs] == ["location", "category", "score", "number of detections"]
    assert [one.name for one in raw.outputs] == ["location", "score"]
    assert [one.labels for one in chosen.outputs] == [(), tuple(LABELS), (), ()] and raw.labels == LABELS
    assert not chosen.task_options
    np.testing.assert_array_equal(read_detector_anchors(raw.task_options[DETECTOR]), task.anchors_of_image())
    # What a file is for is found in it: all that its answers need.
    assert task_of(chosen) == dataclasses.replace(task, alpha=1.0, lite=True)
    answers = [task_of(one).decode(TFLiteModel(one).predict(PIXELS)) for one in (chosen, raw)]
    assert task.agreement(*answers).tolist() == [1.0] * len(PIXELS)
    assert raw.graph.tensors[raw.graph.outputs[1]].shape[-1] == 3  # no background, which nobody there would skip


def test_outputs_have_their_names_whatever_a_converter_calls_them(detector, files):
    model = unpack(files[0].read_bytes())
    graph = model.subgraphs[0]
    for number, index in enumerate(graph.outputs):
        graph.tensors[index].name = f"StatefulPartitionedCall:{number}"
    graph.outputs, model.signatureDefs, model.metadata = graph.outputs[[2, 0, 3, 1]], None, None
    expected, found = TFLiteModel(files[0]).predict(PIXELS), TFLiteModel(pack(model)).predict(PIXELS / 127.5 - 1)
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-6, err_msg=name)  # normalized in float32 or float64


def test_integer_up_to_the_choice_of_boxes(detector, tmp_path):
    model, task = detector
    twin = quantize_model(model)
    calibrate(twin, images(16, SIZE))
    given, answers = {"verify": images(4, SIZE), "labels": LABELS, "strict": True, "verbose": False}, []
    for decoded in (True, False):
        report = export_tflite(twin, tmp_path / "m.tflite", task=task, decoded=decoded, **given)
        file = read_tflite(tmp_path / "m.tflite")
        assert report.audit.is_integer and report.audit.input.startswith("uint8")
        assert report.parity.agreement == 1.0 and report.parity.max_steps <= 1
        names = [one.name for one in file.graph.operators]
        assert (names[-3:] == ["DEQUANTIZE", "DEQUANTIZE", POSTPROCESS]) == decoded
        kinds = {file.graph.tensors[index].dtype for index in file.graph.outputs}
        assert kinds == ({"float32"} if decoded else {"uint8"})  # what MediaPipe takes: all of one kind
        answers.append(task.decode(TFLiteModel(file).predict(PIXELS)))
    for one, other in zip(*answers, strict=True):
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name], err_msg=name)


def test_what_does_not_fit_is_said_at_once(detector, tmp_path):
    model, task = detector
    other = Detection(3, image_size=(SIZE, SIZE), outputs=("where", "what"))
    for arguments, message in (
        ({"task": task, "labels": LABELS[:2]}, "must name the model's 3 classes. Received: 2 names"),
        ({"task": task, "dynamic_batch": True}, "decoded=False"),
        ({"task": other}, r"`task` must have the outputs of .*\['boxes', 'scores'\]. Received: \['where', 'what'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            export_tflite(model, tmp_path / "m.tflite", verbose=False, **arguments)
    assert not list(tmp_path.iterdir())


def test_the_class_of_each_pixel_inside_the_file(tmp_path):
    inputs = keras.Input((8, 8, 3), name="image")
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3, name="mask")(inputs))
    export_tflite(model, tmp_path / "m.tflite", verbose=False)
    tree = unpack((tmp_path / "m.tflite").read_bytes())
    add_argmax(tree, "mask")
    given = images(2, 8)
    found = TFLiteModel(pack(tree)).predict(given)
    np.testing.assert_array_equal(found, np.asarray(model(given)).argmax(-1))
    assert tree.subgraphs[0].tensors[tree.subgraphs[0].outputs[0]].type == schema.TensorType.INT32
