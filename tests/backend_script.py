"""Run by test_backends.py in a process of its own: every row of the catalogue on the backend of `KERAS_BACKEND`."""

import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import catalog

from keras_mobilenets import inline

keras.utils.set_random_seed(0)
for row in catalog.LAYERS + catalog.BUILDERS:
    if row in catalog.BUILDERS:
        model = row.make(input_shape=row.input_shape)
    else:
        inputs = keras.Input(row.input_shape)
        model = keras.Model(inputs, row.make()(inputs))
    x = np.random.default_rng(0).uniform(*row.input_range, (2, *row.input_shape)).astype("float32")
    y = keras.ops.convert_to_numpy(model(x))
    assert y.shape == (2, *row.output_shape), (row, y.shape)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(inline(model)(x)), y)
    if model.trainable_weights:
        model.compile("sgd", "mse")
        model.fit(x, np.zeros_like(y), verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        loaded = keras.models.load_model(Path(folder) / "model.keras")
    answers = [keras.ops.convert_to_numpy(each(x)) for each in (model, loaded)]
    np.testing.assert_array_equal(*answers)
print(f"{keras.backend.backend()}: {len(catalog.LAYERS + catalog.BUILDERS)} rows")
