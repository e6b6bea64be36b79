"""Knowledge distillation: Keras' own `Distiller`, for classifiers that end in a softmax, quantized or not."""

from __future__ import annotations

import dataclasses

import keras
from keras import ops

from keras_mobilenets.layers import inline
from keras_mobilenets.tasks import Embedding, Task, task_of


def distiller(
    student: keras.Model,
    teacher: keras.Model,
    *,
    temperature: float = 3.0,
    student_loss_weight: float = 0.5,
    embeddings: bool = False,
) -> keras.distillation.Distiller:
    """Joins a student and a teacher into a model whose `fit` trains the student. `fit(..., teacher=...)` does this.

    The loss is `w * crossentropy(labels) + (1 - w) * T^2 * KL(teacher || student)`, the softmax of both taken of
    logits / T; or, of embeddings, the mean squared difference alone, as the V1 paper trains a face embedding. Logits
    are taken from before the softmax and thus, of a quantization-aware student, from before its output's rounding.
    The student's layers are trained in place; the distiller itself is not needed afterwards.

    Args:
        student: a model that ends in a softmax, or in an embedding.
        teacher: any Keras model with the same input and as many outputs; it is set to `trainable = False`.
        temperature: T, > 0.
        student_loss_weight: w, of the labels, in [0, 1].
        embeddings: whether the outputs are embeddings; labels are ignored then.

    Returns:
        A `keras.distillation.Distiller`, still to be compiled; its outputs are logits.

    Raises:
        ValueError: inputs or outputs do not fit, or a classifier does not end in a softmax.

    Reference:
        Hinton et al., arXiv:1503.02531; MobileNets, arXiv:1704.04861, section 4.7.

    Example:

    >>> student = build_classifier("MobileNet", classes=2, image_size=32, alpha=0.25)
    >>> teacher = build_classifier("MobileNetV2", classes=2, image_size=32, alpha=0.35)
    >>> distiller(student, teacher, temperature=4.0).student.name
    'mobilenet_classifier_logits'
    """
    if embeddings:
        loss = keras.distillation.FeatureDistillation("mse")
        return keras.distillation.Distiller(teacher, student, [loss], student_loss_weight=0.0)
    # Of the divergence's name, its default, Keras makes a function of logits, not of their softmax.
    loss = keras.distillation.LogitsDistillation(temperature, keras.losses.KLDivergence())
    return keras.distillation.Distiller(
        _logits(teacher), _logits(student), [loss], student_loss_weight=student_loss_weight
    )


def student_task(task: Task, teacher: keras.Model) -> Task:
    """The task of a model that shall learn from a teacher: an embedding is as long as the teacher's.

    Args:
        task: of the student.
        teacher: a model of one output, for the same task; any vectors can be learned as an embedding.

    Raises:
        ValueError: the teacher is for something else.
    """
    taught = task_of(teacher)
    if isinstance(task, Embedding) and len(teacher.outputs) == 1 and len(teacher.output_shape) == 2:
        return dataclasses.replace(task, dimension=teacher.output_shape[-1])
    if taught is None or taught.name != task.name or len(taught.outputs) > 1:
        raise ValueError(f"The teacher must be a model of one output for {task.name}: its scores are learned")
    return task


def _logits(model: keras.Model) -> keras.Model:
    """The same layers, up to what the softmax takes."""
    flat = inline(model)
    softmax = next((layer for layer in reversed(flat.layers) if isinstance(layer, keras.layers.Softmax)), None)
    last = flat.layers[-1]
    if softmax is not None:
        logits = softmax.input
    elif getattr(last, "activation", None) is keras.activations.softmax:
        # Log-probabilities are logits, less what the softmax does not see.
        logits = ops.log(ops.maximum(flat.output, keras.config.epsilon()))
    else:
        raise ValueError(
            f"A classifier must end in a softmax. Received: {model.name!r}, which ends in {last.name!r}. "
            "Add a keras.layers.Softmax, or say embeddings=True"
        )
    return keras.Model(flat.input, logits, name=f"{model.name}_logits")
