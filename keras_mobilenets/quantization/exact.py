"""Exact evaluation: at inference a quantized model computes with the integers, and the roundings, of its file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_mobilenets.integer.layer import NotInteger


class ExactInference:
    """Mixed into a model: at inference it is computed by an `IntegerView`, as soon as it has ranges.

    `predict`, `evaluate`, the validation of `fit` and calls with concrete arrays look first whether weights or ranges
    have changed, and take them over if so. A function that somebody else traces (`tf.function`, `jax.jit`, a model
    around this one, an export) could not: there, as in training, the forward is the fake-quantized one, unless it is
    traced inside of `exactly`.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        self._exactness = _Exactness()
        super().__init__(*args, **kwargs)

    @property
    def exact(self) -> bool:
        """Whether inference computes in the runtime's integer arithmetic; settable.

        False until there are ranges, and for a model that has no file to be equal to: with layers that stay in float,
        kernels of fewer than 8 bits or feature maps of other than 8.
        """
        return self._exactness.is_ready(self)

    @exact.setter
    def exact(self, value: bool) -> None:
        self._exactness.wanted = bool(value)
        if value and not self.exact and self._exactness.reason:
            self._exactness.wanted = False
            raise ValueError(f"{self.name} cannot be evaluated exactly: {self._exactness.reason}")  # type: ignore[attr-defined]

    @property
    def inexact_reason(self) -> str | None:
        """Why inference cannot compute in the runtime's integer arithmetic, in a sentence; None where it can."""
        return None if self._exactness.is_ready(self) else self._exactness.reason or "it is switched off"

    def exact_logits(self) -> keras.Model | None:
        """The model as it is evaluated exactly, but without the softmax of its outputs, whose flatness hides much.

        Returns:
            A model on the same inputs, for as long as neither weights nor ranges change; None where no softmax is.

        Raises:
            ValueError: the model is not evaluated exactly.
        """
        if (reason := self.inexact_reason) is not None:
            raise ValueError(f"{self.name} is not evaluated exactly: {reason}")  # type: ignore[attr-defined]
        return self._exactness.view.logits

    def integer_graph(self) -> Any:
        """The operations and integers of the file that `export_tflite` writes, from the model's own weights and ranges.

        Returns:
            A `keras_mobilenets.tflite` graph, from uint8 to uint8, as `integer_model` takes it.

        Raises:
            ValueError: there are no ranges yet, or part of the model has no integer form.
        """
        from keras_mobilenets.quantization.integers import integer_graph  # which looks at quantized models

        return integer_graph(self)

    @property
    def variables(self) -> list[Any]:
        """With those of the integers, which are state as seeds are, and no weights."""
        return super().variables + self._exactness.variables  # type: ignore[misc]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._exactness.inside or kwargs.get("training") or not _is_concrete((args, kwargs)):
            return super().__call__(*args, **kwargs)  # type: ignore[misc]
        with self.exactly():
            return super().__call__(*args, **kwargs)  # type: ignore[misc]

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        if self._exactness.inside and not training:
            return self._exactness.view.model(inputs)
        return super().call(inputs, training=training, mask=mask)  # type: ignore[misc]

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        with self.exactly():
            return super().predict(*args, **kwargs)  # type: ignore[misc]

    def predict_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        with self.exactly():
            return super().predict_on_batch(*args, **kwargs)  # type: ignore[misc]

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        with self.exactly():
            return super().evaluate(*args, **kwargs)  # type: ignore[misc]

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        with self.exactly():
            return super().test_on_batch(*args, **kwargs)  # type: ignore[misc]

    @contextlib.contextmanager
    def exactly(self) -> Iterator[None]:
        """Inside of it a function that somebody else traces computes in integers, too: in those of now, for good.

        Example:

        >>> with quantized.exactly():  # doctest: +SKIP
        ...     function = tf.function(quantized).get_concrete_function(tf.TensorSpec((None, 96, 96, 3)))
        """
        state = self._exactness
        before, state.inside = state.inside, state.is_ready(self)
        if (state.inside and state.compiled is not state.view) or (not state.inside and state.compiled is not None):
            self.predict_function = self.test_function = None  # they were traced for another forward
            state.compiled = state.view if state.inside else None
        try:
            yield
        finally:
            state.inside = before


class _Exactness:
    """What a model knows of its integers. Not a part of the model for Keras, which would save it."""

    def __init__(self):
        self.wanted = True
        self.view: Any = None
        self.compiled: Any = None  # the view that the compiled functions were traced with
        self.inside = False
        self.reason: str | None = None
        self.seen: list[np.ndarray] | None = None

    @property
    def variables(self) -> list[Any]:
        return [] if self.view is None else self.view.variables

    def is_ready(self, model: Any) -> bool:
        """Whether inference is to be exact; if so, the integers are those of the weights as they are now."""
        if not self.wanted or not model.built:
            return False
        if self.inside:
            return True
        weights = [weight.numpy() for weight in model.weights]
        same = self.seen is not None and all(map(np.array_equal, self.seen, weights))
        if not same:
            self.seen = weights
            self.reason = self._renew(model)
        return self.reason is None

    def _renew(self, model: Any) -> str | None:
        """Brings the view up to date; gives the reason where there can be none."""
        from keras_mobilenets.quantization.view import IntegerView  # which looks at quantized models

        try:
            if self.view is None or not self.view.refresh():
                with _scope(model):
                    self.view = IntegerView(model)
        except NotInteger as error:
            return str(error)
        return None


def _scope(model: Any) -> Any:
    """Where the model's variables are made: on all devices of a `tf.distribute.Strategy`."""
    strategy = getattr(model, "distribute_strategy", None)
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def _is_concrete(values: Any) -> bool:
    """Whether arrays hold numbers: neither symbolic nor traced."""
    for leaf in keras.tree.flatten(values):
        if isinstance(leaf, keras.KerasTensor):
            return False
        if keras.ops.is_tensor(leaf):
            try:
                keras.ops.convert_to_numpy(leaf[:0])
            except Exception:  # each backend has an error of its own for what is traced
                return False
    return True
