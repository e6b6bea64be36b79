"""What is to be known where a batch is split: among replicas on TensorFlow, among processes on JAX."""

from __future__ import annotations

from typing import Any

import keras


def parts(value: Any) -> Any | None:
    """The value on each replica of a `tf.distribute` strategy, in a new first axis; None where there is one alone.

    On JAX the program is one, and sees the whole batch.
    """
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    if not tf.distribute.in_cross_replica_context():
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            return context.all_gather(tf.expand_dims(value, 0), axis=0)
    return None


def processes() -> int:
    """How many processes share a model, and train together."""
    if keras.backend.backend() != "jax":
        return 1
    import jax

    return jax.process_count()
