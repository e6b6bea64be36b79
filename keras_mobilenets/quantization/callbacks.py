"""Callbacks of quantization-aware training: what is constant when deployed, and what a pruned model holds zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_mobilenets.arguments import check_integers
from keras_mobilenets.layers import inline
from keras_mobilenets.quantization.layers import QuantBatchNormalization
from keras_mobilenets.quantization.quantizers import FakeQuant


class FreezeQuantization(keras.callbacks.Callback):
    """Freezes the statistics of batch normalization, and then the ranges of feature maps, while training goes on.

    Towards the end the weights should settle to what will be deployed: normalization by the moving averages, feature
    maps on grids that move no more. Kernels, gammas and betas are still trained.

    Args:
        batch_norm_after: number of epochs after which normalization uses the moving averages; None for never.
        ranges_after: number of epochs after which ranges stay as they are; None for never.

    The defaults are those of torchvision's reference for quantization-aware training of MobileNets
    (`references/classification/train_quantization.py`: `--num-batch-norm-update-epochs 3
    --num-observer-update-epochs 4`). Epochs are counted as `fit` does, `initial_epoch` included, so that a resumed
    training is frozen where the interrupted one was.

    Raises:
        ValueError: a number of epochs is negative.

    Reference:
        Krishnamoorthi, arXiv:1806.08342, section 3.2: statistics are frozen late in training.

    Example:

    >>> inputs = keras.Input((8, 8, 3))
    >>> x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, name="conv")(inputs))
    >>> model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x)))
    >>> quantized = quantize_model(model)
    >>> quantized.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    >>> images, labels = np.zeros((4, 8, 8, 3)), np.array([0, 1, 0, 1])
    >>> history = quantized.fit(images, labels, epochs=2, verbose=0, callbacks=[FreezeQuantization(0, 1)])
    """

    def __init__(self, batch_norm_after: int | None = 3, ranges_after: int | None = 4):
        super().__init__()
        check_integers("[0, inf)", optional=True, batch_norm_after=batch_norm_after, ranges_after=ranges_after)
        self.batch_norm_after = batch_norm_after
        self.ranges_after = ranges_after

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        due = self.batch_norm_after, self.ranges_after
        freeze_norms, freeze_ranges = (epochs is not None and epoch >= epochs for epochs in due)
        changed = False
        trained = getattr(self.model, "student", self.model)  # of a keras.distillation.Distiller
        for layer in inline(trained).layers:
            if isinstance(layer, QuantBatchNormalization) and layer.frozen_statistics != freeze_norms:
                layer.frozen_statistics, changed = freeze_norms, True
            if isinstance(layer, FakeQuant) and layer.frozen != freeze_ranges:
                layer.frozen, changed = freeze_ranges, True
        if changed:
            self.model.make_train_function(force=True)  # the compiled step has the old behaviour in it


class KeepZeros(keras.callbacks.Callback):
    """Keeps the weights of kernels zero that are zero when training begins.

    Pruning is lost in fine-tuning where nothing holds it. The masks are applied at the end of each optimizer step, so
    that momentum moves no zero either. Rounding a kernel to integers and folding a batch normalization into it keep
    zeros by themselves.

    Example:

    >>> inputs = keras.Input((8, 8, 3))
    >>> x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, name="conv")(inputs))
    >>> model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x)))
    >>> kernel = inline(model).get_layer("conv").kernel
    >>> _ = kernel.assign(kernel * (keras.ops.abs(kernel) > 0.1))
    >>> quantized = quantize_model(model)
    >>> quantized.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    >>> images, labels = np.zeros((4, 8, 8, 3)), np.array([0, 1, 0, 1])
    >>> history = quantized.fit(images, labels, verbose=0, callbacks=[KeepZeros()])
    >>> bool(np.all(quantized.get_layer("conv").kernel.numpy()[kernel.numpy() == 0] == 0))
    True
    """

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._before: list[tuple[Any, Callable[[Any], Any] | None]] = []
        for variable in inline(self.model).trainable_variables:
            if variable.name.endswith("kernel"):
                nonzero = ops.convert_to_numpy(variable) != 0
                if not nonzero.all():
                    self._before.append((variable, variable.constraint))
                    variable.constraint = _masked(nonzero, variable.constraint)
        self.model.make_train_function(force=True)  # a step that was compiled before has no masks in it

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        for variable, constraint in self._before:
            variable.constraint = constraint
        self.model.make_train_function(force=True)


def _masked(nonzero: Any, constraint: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    def masked(weights: Any) -> Any:
        weights = weights if constraint is None else constraint(weights)
        return weights * ops.cast(nonzero, weights.dtype)

    return masked
