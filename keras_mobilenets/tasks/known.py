"""The tasks by name, and what a model or file is for where nobody said so. Needs no Keras for files."""

from __future__ import annotations

from typing import Any

from keras_mobilenets.tasks.classification import Classification
from keras_mobilenets.tasks.detection import Detection
from keras_mobilenets.tasks.task import Task
from keras_mobilenets.tflite.file import TFLiteFile

TASKS: dict[str, type[Task]] = {task.name: task for task in (Classification, Detection)}
"""What `--task` takes."""

PASSED_OVER = ("FakeQuant", "InputQuant", "Dropout", "Flatten", "Reshape", "Identity")  # the same scores, moved
WRAPPING = ("DEQUANTIZE", "QUANTIZE", "RESHAPE", "CAST")
ENDINGS = {"softmax": "softmax", "sigmoid": "sigmoid", "SOFTMAX": "softmax", "LOGISTIC": "sigmoid"}


def task_of(model: Any) -> Task | None:
    """The task of a model that says it by its form: one output (batch, classes) is a classifier's.

    Several columns are a softmax's, or its logits, or sigmoids, as the model ends; one column is a sigmoid's or means
    nothing known. Of several outputs, and of other shapes, only their maker knows what they are.

    Args:
        model: a Keras model, or a `TFLiteFile`.

    Returns:
        A `Classification`; None where the form does not say.

    Example:

    >>> task_of(MobileNet(input_shape=(32, 32, 3), alpha=0.25, weights=None, classes=5)).activation
    'softmax'
    """
    if isinstance(model, TFLiteFile):
        graph = model.graph
        shapes = [graph.tensors[index].shape for index in graph.outputs]
        names = ["output"]
        ending = next((ENDINGS.get(one.name) for one in reversed(graph.operators) if one.name not in WRAPPING), None)
    else:
        import keras

        # A subclassed model knows no tensors.
        shapes = [tensor.shape for tensor in keras.tree.flatten(getattr(model, "outputs", None) or [])]
        names = list(getattr(model, "output_names", None) or ["output"])
        ending = _ending(model) if len(shapes) == 1 else None
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][-1] is None or (shapes[0][-1] == 1 and ending != "sigmoid"):
        return None
    return Classification(
        int(shapes[0][-1]),
        multi_label=ending == "sigmoid" and shapes[0][-1] > 1,
        from_logits=ending is None,
        outputs=(names[0],),
    )


def _ending(model: Any) -> str | None:
    """The function that a Keras model's scores have gone through last."""
    import keras

    from keras_mobilenets.layers import inline

    for layer in reversed(inline(model).operations):
        function = getattr(getattr(layer, "activation", None), "__name__", None) or type(layer).__name__.lower()
        moved = type(layer).__name__ in PASSED_OVER or (function == "linear" and not layer.weights)
        if not moved and not isinstance(layer, keras.layers.InputLayer):
            return ENDINGS.get(function)
    return None
