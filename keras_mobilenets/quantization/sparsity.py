"""Quantization-aware training of a pruned model: what is zero stays zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_mobilenets.layers import inline


class KeepZeros(keras.callbacks.Callback):
    """Keeps the weights of kernels zero that are zero when training begins.

    Pruning is lost in fine-tuning where nothing holds it. The masks are applied at the end of each optimizer step, so
    that momentum moves no zero either. Rounding a kernel to integers and folding a batch normalization into it keep
    zeros by themselves.

    Example:

    >>> model = MobileNet(input_shape=(32, 32, 3), alpha=0.25, weights=None, classes=2)
    >>> kernel = inline(model).get_layer("conv_pw_1").kernel
    >>> _ = kernel.assign(kernel * (keras.ops.abs(kernel) > 0.1))
    >>> quantized = quantize_model(model)
    >>> quantized.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    >>> images, labels = np.zeros((4, 32, 32, 3)), np.array([0, 1, 0, 1])
    >>> history = quantized.fit(images, labels, verbose=0, callbacks=[KeepZeros()])
    >>> bool(np.all(quantized.get_layer("conv_pw_1").kernel.numpy()[kernel.numpy() == 0] == 0))
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
