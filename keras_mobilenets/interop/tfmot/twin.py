"""The bridge to Keras 2: `tfmot` prunes, clusters and quantizes the twin, and the weights come back."""

from __future__ import annotations

from typing import Any

import keras

from keras_mobilenets.graph import Graph, Node
from keras_mobilenets.interop.tfmot.layers import tf_keras, twin_layers
from keras_mobilenets.layers import inline
from keras_mobilenets.quantization.lower import find_hard_activations, lower_operations


def to_tf_keras(model: keras.Model) -> Any:
    """Makes the Keras 2 twin of a model, for tools that know Keras 2 only, as tfmot does.

    The twin is flat, has the layer names of `inline(model)` and weights of its own, copied from `model`; it gives the
    same answers. It computes in float32 whatever the model's dtype policy. `tfmot.sparsity` and `tfmot.clustering`
    take it as it is; for `tfmot.quantization` see `tfmot_annotate`.

    Args:
        model: a functional or sequential model made of this package's and the usual Keras layers, with nested models
            as it likes. It stays unchanged.

    Returns:
        A functional `tf_keras.Model`, not compiled.

    Raises:
        ImportError: the extra `tfmot` is not installed.
        ValueError: a layer, an operation or an activation has no twin.

    Example:

    >>> model = MobileNetV2(input_shape=(32, 32, 3), alpha=0.35, weights=None, classes=5)
    >>> twin = to_tf_keras(model)
    >>> type(twin).__module__.partition(".")[0], twin.output_shape
    ('tf_keras', (None, 5))
    """
    graph = Graph.of(inline(model))
    lower_operations(graph)
    find_hard_activations(graph)
    twins: dict[int, tuple[Any, list[Any]]] = {}  # a layer that is used twice has one twin

    def make(node: Node, args: tuple, kwargs: dict[str, Any]) -> Any:
        if not isinstance(node.layer, keras.layers.Layer):
            raise ValueError(
                f"Operation {node.name!r} ({type(node.layer).__name__}) has no twin in tf_keras. Use a layer in its "
                "place."
            )
        if id(node.layer) not in twins:
            twins[id(node.layer)] = node.layer, twin_layers(node.layer)
        main, *activation = twins[id(node.layer)][1]
        # Of a nested model that was called so. True is recorded of augmentation, and would be final in Keras 2.
        training = {"training": False} if kwargs.get("training") is False else {}
        value = main(*args, **training)
        for layer in activation:
            value = layer(value)
        return value

    twin = graph.build(make, make_input=_input, cls=tf_keras.Model)
    for layer, (main, *_) in twins.values():
        main.set_weights(layer.get_weights())
    return twin


def from_tf_keras(twin: Any, model: keras.Model) -> None:
    """Copies the weights of a Keras 2 twin back into the model that it was made from.

    Args:
        twin: what `to_tf_keras(model)` gave, or what tfmot made of it: with or without the wrappers of pruning and
            quantization, clustered and stripped. Layers are matched by name.
        model: gets the weights, in place.

    Raises:
        ImportError: the extra `tfmot` is not installed.
        ValueError: the two are not of the same layers and shapes, or `twin` has the wrappers of clustering, which hold
            no clustered weights until `strip_clustering`. `model` is then unchanged.

    Example:

    >>> model = MobileNet(input_shape=(32, 32, 3), alpha=0.25, weights=None, classes=2)
    >>> twin = to_tf_keras(model)
    >>> from_tf_keras(twin, model)
    """
    theirs = _weights_by_layer(twin)
    ours = {layer.name: layer for layer in inline(model).layers if layer.weights}
    strangers = [name for name, (layer, _) in theirs.items() if layer.trainable_weights and name not in ours]
    missing = [name for name in ours if name not in theirs]
    if strangers or missing:
        raise ValueError(
            f"`twin` was not made from `model`. Layers with weights only in `model`: {missing}; only in `twin`: "
            f"{strangers}."
        )
    new = {name: _matched(layer, theirs[name][1]) for name, layer in ours.items()}  # all of them, or none is set
    for name, layer in ours.items():
        layer.set_weights(new[name])


def _weights_by_layer(twin: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    """For each name of a layer without its wrappers: the layer, and its weights and its wrappers' by name."""
    found = {}
    for layer in twin.layers:
        if type(layer).__name__.startswith("ClusterWeights"):
            raise ValueError("`twin` must be stripped first, by tfmot.clustering.keras.strip_clustering.")
        inner = layer
        while isinstance(inner, tf_keras.layers.Wrapper):
            inner = inner.layer
        # Of the outermost layer: a quantization wrapper keeps the kernel, and its layer a rounded copy.
        found[inner.name] = layer, {weight.name.split("/")[-1].split(":")[0]: weight for weight in layer.weights}
    return found


def _matched(layer: keras.layers.Layer, theirs: dict[str, Any]) -> list[Any]:
    """The values for a layer's weights, in their order."""
    values = []
    for weight in layer.weights:
        name = "depthwise_kernel" if isinstance(layer, keras.layers.DepthwiseConv2D) else "kernel"
        name = name if weight.name == "kernel" else weight.name
        if name not in theirs or tuple(theirs[name].shape) != tuple(weight.shape):
            raise ValueError(
                f"Layer {layer.name!r} of `model` has a weight {name!r} of shape {tuple(weight.shape)}. That of `twin` "
                f"has { {key: tuple(value.shape) for key, value in theirs.items()} }."
            )
        values.append(theirs[name].numpy())
    return values


def _input(node: Node) -> Any:
    batch, *shape = node.tensor.shape
    return tf_keras.Input(shape, batch_size=batch, dtype=node.tensor.dtype, name=node.name)
