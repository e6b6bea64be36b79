"""Anchors, boxes and their choice, against the files and the kernel that phones run."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

import keras_mobilenets  # noqa: F401
from keras_mobilenets.tasks import boxes
from keras_mobilenets.tflite.edit.answers import RESULTS, add_postprocess
from keras_mobilenets.tflite.edit.slim import pack

MAPS = [(19, 19), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]


def runtime(anchors, classes, suppression, background):
    """A file that holds nothing but the kernel."""
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = [], []
    for size in (4, classes + background):
        tensor = schema.TensorT(np.array([1, len(anchors), size], np.int32), schema.TensorType.FLOAT32, 0, f"in{size}")
        graph.tensors.append(tensor)
    graph.inputs = graph.outputs = np.array([0, 1], np.int32)
    model = schema.ModelT(3, [], [graph], "", [schema.BufferT()])
    outputs = [schema.TensorMapT(name, index) for index, name in enumerate(("boxes", "scores"))]
    model.signatureDefs = [schema.SignatureDefT([], outputs, "serving_default")]
    add_postprocess(model, ("boxes", "scores"), anchors, suppression.options(classes))
    interpreter = Interpreter(model_content=pack(model))
    interpreter.allocate_tensors()

    def run(encodings, scores):
        for detail, values in zip(interpreter.get_input_details(), (encodings, scores), strict=True):
            interpreter.set_tensor(detail["index"], values[np.newaxis])
        interpreter.invoke()
        results = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
        found = dict(zip(RESULTS, results, strict=True))
        count = int(found.pop("count")[0])
        return {name: values[0, :count] for name, values in found.items()}

    return run


@pytest.mark.parametrize("by_class", [True, False], ids=["by class", "best class"])
@pytest.mark.parametrize("background", [True, False], ids=["background", "without"])
def test_the_choice_is_the_kernels_own(rng, by_class, background):
    anchors = boxes.ssd_anchors(3).around([(6, 5), (3, 3), (2, 2)])
    suppression = boxes.Suppression(most=20, least_score=0.3, most_overlap=0.4, by_class=by_class, most_of_class=8)
    run = runtime(anchors, 4, suppression, background)
    for _ in range(20):
        encodings = rng.normal(0, 2, (len(anchors), 4)).astype("float32")
        scores = rng.uniform(0, 1, (len(anchors), 4 + background)).astype("float32").round(2)  # so that some are equal
        expected = run(encodings, scores)
        found = suppression(boxes.decode(encodings, anchors), scores[:, background:])
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)
