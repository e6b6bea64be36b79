"""The tasks by name, and what a model or file is for where nobody said so. Needs no Keras for files."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras_mobilenets.tasks.boxes import ssd_anchors, torchvision_anchors
from keras_mobilenets.tasks.classification import Classification
from keras_mobilenets.tasks.detection import Detection
from keras_mobilenets.tasks.detector_files import detector_of_file
from keras_mobilenets.tasks.embedding import Embedding
from keras_mobilenets.tasks.segmentation import Segmentation
from keras_mobilenets.tasks.task import Task
from keras_mobilenets.tflite.edit.answers import POSTPROCESS
from keras_mobilenets.tflite.file import TFLiteFile
from keras_mobilenets.tflite.runner import named_tensors

TASKS: dict[str, type[Task]] = {task.name: task for task in (Classification, Detection, Segmentation, Embedding)}
"""What `--task` takes."""

PASSED_OVER = ("FakeQuant", "InputQuant", "Dropout", "Flatten", "Reshape", "Identity")  # the same scores, moved
WRAPPING = ("DEQUANTIZE", "QUANTIZE", "RESHAPE", "CAST")
ENDINGS = {"softmax": "softmax", "sigmoid": "sigmoid", "SOFTMAX": "softmax", "LOGISTIC": "sigmoid"}


def task_of(model: Any) -> Task | None:
    """The task of a model that says it by its form: one output (batch, classes) is a classifier's.

    Several columns are a softmax's, or its logits, or sigmoids, as the model ends; one column is a sigmoid's or means
    nothing known. "boxes" and "scores" of as many anchors as `ssd_anchors` or `torchvision_anchors` put on the image
    are a detector's, columns called "embedding" are that, and a "mask" (batch, height, width, classes) is of pixels'
    classes. Of other outputs only their maker knows what they are.

    Args:
        model: a Keras model, or a `TFLiteFile`.

    Returns:
        A `Classification`, a `Detection`, a `Segmentation` or an `Embedding`; None where the form does not say.

    Example:

    >>> task_of(MobileNet(input_shape=(32, 32, 3), alpha=0.25, weights=None, classes=5)).activation
    'softmax'
    """
    if isinstance(model, TFLiteFile) and (detector := detector_of_file(model)) is not None:
        return detector
    form = _file_form(model) if isinstance(model, TFLiteFile) else _keras_form(model)
    if form.scores or set(form.outputs) == set(Detection.outputs):
        return _detector(form)
    shapes, ending = list(form.outputs.values()), form.endings[0] if form.endings else None
    if tuple(form.outputs) == Segmentation.outputs and len(shapes[0]) == 4 and (shapes[0][-1] or 0) > 1:
        return Segmentation(int(shapes[0][-1] or 0))
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][-1] is None or (shapes[0][-1] == 1 and ending != "sigmoid"):
        return None
    if tuple(form.outputs) == Embedding.outputs:
        return Embedding(int(shapes[0][-1]))
    return Classification(
        int(shapes[0][-1]),
        multi_label=ending == "sigmoid" and shapes[0][-1] > 1,
        from_logits=ending is None,
        outputs=tuple(form.outputs),
    )


class _Form(NamedTuple):
    """Shapes of the first input and of the outputs by name; functions that the last numbers have gone through.

    Where class names are in a file, how many; where a file chooses boxes itself, of how many scores for each anchor.
    """

    image: tuple[int | None, ...]
    outputs: dict[str, tuple[int | None, ...]]
    endings: list[str | None]
    names: int = 0
    scores: int = 0


def _file_form(file: TFLiteFile) -> _Form:
    graph = file.graph
    choices = [graph.tensors[one.inputs[1]].shape[-1] for one in graph.operators if one.name == POSTPROCESS]
    return _Form(
        tuple(graph.tensors[graph.inputs[0]].shape),
        {name: tuple(tensor.shape) for name, tensor in named_tensors(file, "outputs").items()},
        [ENDINGS.get(one.name) for one in reversed(graph.operators) if one.name not in WRAPPING],
        len(file.labels or ()),
        int(choices[0]) if choices else 0,
    )


def _keras_form(model: Any) -> _Form:
    import keras

    tensors = keras.tree.flatten(getattr(model, "outputs", None) or [])  # a subclassed model knows none
    names = list(getattr(model, "output_names", None) or _numbered(len(tensors)))
    inputs = keras.tree.flatten(getattr(model, "inputs", None) or [])
    outputs = dict(zip(names, (tuple(one.shape) for one in tensors), strict=True))
    return _Form(tuple(inputs[0].shape) if inputs else (), outputs, _endings(model) if outputs else [])


def _numbered(count: int) -> list[str]:
    return ["output"] if count == 1 else [f"output_{number}" for number in range(count)]


def _detector(form: _Form) -> Detection | None:
    height, width, *_ = form.image[1:] or (None, None)
    if form.scores:  # decoded in the file: which anchors they were is of no matter
        return Detection(form.names or form.scores, image_size=(int(height or 0), int(width or 0)))
    boxes, scores = (form.outputs[name] for name in Detection.outputs)
    if len(boxes) != 3 or boxes[-1] != 4 or scores[:-1] != boxes[:-1] or height is None or width is None:
        return None
    ending = next((one for one in form.endings if one), None)  # of the head, which stands last
    background = ending == "softmax" and form.names != scores[-1]
    classes = int(scores[-1] or 0) - background
    for anchors in (ssd_anchors(), torchvision_anchors()) if classes > 0 else ():
        task = Detection(classes, image_size=(height, width), background=background, anchors=anchors)
        if len(task.anchors_of_image()) == boxes[1]:
            return task
    return None


def _endings(model: Any) -> list[str | None]:
    """The functions that a Keras model's numbers have gone through, the last one first; None for what has no name."""
    import keras

    from keras_mobilenets.layers import inline

    found = []
    for layer in reversed(inline(model).operations):
        function = getattr(getattr(layer, "activation", None), "__name__", None) or type(layer).__name__.lower()
        moved = type(layer).__name__ in PASSED_OVER or (function == "linear" and not layer.weights)
        if not moved and not isinstance(layer, keras.layers.InputLayer):
            found.append(ENDINGS.get(function))
    return found
