"""What holds for every public layer and builder: the rows are in catalog.py."""

import inspect

import catalog
import keras
import numpy as np
import pytest

import keras_mobilenets

layers = pytest.mark.parametrize("row", catalog.LAYERS, ids=str)
slow = {id(row): pytest.param(row, marks=pytest.mark.slow) for row in catalog.BUILDERS if row.slow}
rows = pytest.mark.parametrize("row", [slow.get(id(row), row) for row in catalog.LAYERS + catalog.BUILDERS], ids=str)


def as_model(row, **kwargs):
    """The row's layer as a model, or the row's builder."""
    if row in catalog.BUILDERS:
        return row.make(input_shape=row.input_shape, **kwargs)
    inputs = keras.Input(row.input_shape)
    return keras.Model(inputs, row.make(**kwargs)(inputs))


def images(row, rng, batch=2):
    return rng.uniform(*row.input_range, (batch, *row.input_shape)).astype("float32")


def test_every_public_layer_and_builder_has_a_row():
    def public(module, kind):
        return {name for name in dir(module) if kind(getattr(module, name))}

    from keras_mobilenets import applications, layers

    classes = public(layers, inspect.isclass) - {
        "CompositeLayer",
        "MultiQueryAttention",
    }  # their rows: its children; MobileMQA
    others = {"SSDLite", "SSD300", "LRASPP", "DeepLabV3"}  # tests/test_detection_models.py, test_segmentation_models.py
    builders = {name for name in public(applications, inspect.isfunction) if name[0].isupper()} - others
    assert classes == {row.name for row in catalog.LAYERS}
    assert builders == {row.name for row in catalog.BUILDERS}
    assert classes | builders <= set(keras_mobilenets.__all__)


@rows
def test_shape_and_parameters(row, rng):
    model = as_model(row)
    assert model(images(row, rng)).shape == (2, *row.output_shape)
    assert model.count_params() == row.parameters


@layers
def test_config_round_trip(row):
    layer = row.make(name="block_7")
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    declared = {**row.arguments}
    assert {key: getattr(again, key) for key in declared} == declared


@layers
def test_compute_output_shape_agrees_with_call(row, rng):
    assert row.make().compute_output_shape((2, *row.input_shape)) == (2, *row.output_shape)
    height_and_width_unknown = (None, None, None, row.input_shape[-1])
    symbolic = row.make()(keras.Input(batch_shape=height_and_width_unknown))
    assert symbolic.shape == (None, None, None, row.output_shape[-1])


@rows
def test_saved_and_loaded_model_answers_the_same(row, rng, tmp_path):
    model = as_model(row)
    x = images(row, rng)
    model(x, training=True)  # batch statistics off their initial values
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))


@layers
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_dtype_policies(row, rng, policy):
    layer = row.make(dtype=policy)
    output = layer(images(row, rng))
    compute = {"mixed_float16": "float16", "mixed_bfloat16": "bfloat16"}.get(policy, policy)
    assert keras.backend.standardize_dtype(output.dtype) == compute
    variable = "float64" if policy == "float64" else "float32"
    assert {weight.dtype for weight in layer.weights} <= {variable, "uint32"}  # uint32: a dropout's seed
    assert np.isfinite(keras.ops.convert_to_numpy(keras.ops.cast(output, "float32"))).all()


@rows
def test_trains(row, rng):
    model = as_model(row)
    x = images(row, rng, batch=4)
    for layer in keras_mobilenets.inline(model).layers:
        if isinstance(layer, keras_mobilenets.LayerScale):
            layer.gamma.assign(keras.ops.ones_like(layer.gamma))  # 1e-5 leaves no gradient to see
    model.compile(keras.optimizers.SGD(100.0), "mse")  # so large that no step is lost in float32's rounding
    before = [weight.numpy().copy() for weight in model.trainable_weights]
    model.train_on_batch(x, np.ones((4, *row.output_shape), "float32"))
    changed = [not np.array_equal(old, new.numpy()) for old, new in zip(before, model.trainable_weights, strict=True)]
    assert all(changed)


@layers
def test_usable_in_sequential_and_subclassed_models(row, rng):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer = row.make()

        def call(self, inputs):
            return self.layer(inputs)

    x = images(row, rng)
    assert Subclassed()(x).shape == keras.Sequential([row.make()])(x).shape == (2, *row.output_shape)


@layers
def test_wrong_rank_is_named(row):
    if row.name in ("HardSwish", "HardSigmoid", "BatchNormalization", "LayerScale"):
        assert row.make()(np.zeros((2, 16), "float32")).shape == (2, 16)  # these take any rank
    else:
        with pytest.raises(ValueError, match="expected (min_)?ndim=4, found ndim=2"):
            row.make()(np.zeros((2, 16), "float32"))


@layers
def test_layers_that_keep_the_shape_pass_masks_on(row):
    if row.input_shape == row.output_shape and row.name not in ("InvertedResidual", "UniversalInvertedBottleneck"):
        assert row.make().supports_masking


@layers
def test_a_layer_that_is_frozen_has_frozen_parts(row):
    inputs = keras.Input(row.input_shape)
    layer = row.make(trainable=False)
    assert not keras_mobilenets.inline(keras.Model(inputs, layer(inputs))).trainable_weights


@layers
@pytest.mark.parametrize("wrong", [None, 0, -1, "3", float("nan")], ids=str)
def test_each_argument_is_refused_by_its_name(row, wrong):
    """Numbers without a default; `None` and 0 mean something for others."""
    for name in row.arguments.keys() & {"filters", "num_heads", "key_dim"}:
        if row.name != "Conv2D":  # Keras' own errors
            with pytest.raises(ValueError, match=f"`{name}` must be"):
                row.make(**{name: wrong})
