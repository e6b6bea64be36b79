"""SavedModel and ONNX: other programs' files that answer as the Keras model does."""

from __future__ import annotations

import io
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from export_models import SIZE, images, tiny
from PIL import Image

from keras_mobilenets.data import read_image
from keras_mobilenets.export import export_onnx, export_saved_model
from keras_mobilenets.export.saved_model import foreign_files
from keras_mobilenets.quantization import calibrate, quantize_model


@pytest.fixture(scope="module")
def model(tiny_model) -> keras.Model:
    return tiny_model


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "1"
    report = export_saved_model(model, path, verify=images(8), verbose=False)
    return report, tf.saved_model.load(str(path))


def encoded(image_format: str, size: tuple[int, int], **kwargs) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(file, image_format, **kwargs)
    return file.getvalue()


def test_signatures_answer_as_keras(served, model):
    report, loaded = served
    assert set(loaded.signatures) == {"serve", "serve_jpeg", "serving_default"}
    expected = model.predict(images(5), verbose=0)
    np.testing.assert_allclose(loaded.serve(images(5)), expected, atol=1e-5)
    (default,) = loaded.signatures["serving_default"](tf.constant(images(5))).values()
    np.testing.assert_allclose(default, expected, atol=1e-5)
    assert report.parity.agreement == 1.0 and report.parity.source == "verify"
    assert report.signatures == {"serve": "float32 ? x 32 x 32 x 3", "serve_jpeg": "string ?"}


@pytest.mark.parametrize("size", [(320, 200), (90, 130), (64, 64), (20, 28)])
def test_image_bytes_are_read_as_everywhere_else(served, model, size):
    """Landscape, portrait, a thumbnail, one smaller than the model; PNG, so that the decoders cannot differ.

    Pillow resizes in fixed point and TensorFlow in floats: a pixel may differ by one of 255.
    """
    _, loaded = served
    content = encoded("PNG", size)
    pixels = read_image(content, SIZE).astype("float32")
    neighbours = [model.predict((pixels + shift)[None] / 127.5 - 1, verbose=0) for shift in (-1, 0, 1)]
    tolerance = 2 * max(np.abs(neighbours[1] - neighbours[place]).max() for place in (0, 2))
    np.testing.assert_allclose(loaded.serve_jpeg([content]), neighbours[1], atol=max(tolerance, 1e-3))


def test_jpegs_of_different_sizes_in_one_batch(served):
    _, loaded = served
    contents = [encoded("JPEG", (100, 80)), encoded("JPEG", (300, 400)), encoded("PNG", (50, 50))]
    together = loaded.serve_jpeg(contents).numpy()
    alone = np.concatenate([loaded.serve_jpeg([content]) for content in contents])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert np.ptp(together, axis=0).max() > 0.01


@pytest.mark.slow
def test_quantized_and_sizeless_models_are_served(model, tmp_path):
    quantized = quantize_model(model)
    calibrate(quantized, images(16))
    assert export_saved_model(quantized, tmp_path / "q", verbose=False).parity.max_difference < 1e-5
    with pytest.raises(ValueError, match="input_shape"):
        export_saved_model(tiny(size=None), tmp_path / "s")
    report = export_saved_model(
        tiny(size=None), tmp_path / "s", input_shape=(40, 48, 3), normalization=None, verbose=False
    )
    assert report.signatures == {"serve": "float32 ? x 40 x 48 x 3"}


def test_failed_export_leaves_the_old_folder(model, tmp_path, monkeypatch):
    folder = tmp_path / "1"
    folder.mkdir()
    (folder / "saved_model.pb").write_text("old")

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keras_mobilenets.export.saved_model._compare", fail)  # when the new one is all but done
    with pytest.raises(OSError, match="No space left"):
        export_saved_model(model, folder, verify=images(4))
    assert [one.name for one in folder.iterdir()] == ["saved_model.pb"] and list(tmp_path.iterdir()) == [folder]


def test_only_a_saved_model_is_replaced(model, served, tmp_path):
    """What it writes is all its own; anything else in the folder, at any depth, is kept and named."""
    folder = tmp_path / "project"
    assert not foreign_files(served[0].path)
    shutil.copytree(served[0].path, folder)
    (tmp_path / "link").symlink_to("project")
    export_saved_model(model, tmp_path / "link", verify=images(4), verbose=False)
    assert (tmp_path / "link").is_symlink() and not foreign_files(folder)
    for name in ("variables/notes.txt", "assets/words.txt", "thesis.docx"):
        (folder / name).touch()
        with pytest.raises(FileExistsError, match=f"project holds '{name}', which would be lost"):
            export_saved_model(model, folder, verify=images(4), verbose=False)
        (folder / name).unlink()
    (folder / "saved_model.pb").unlink()
    with pytest.raises(FileExistsError, match="project holds 'assets', 'fingerprint.pb', 'variables'"):
        export_saved_model(model, folder, verify=images(4), verbose=False)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["link", "project"]


def test_report_prints(served, capsys):
    served[0].print()
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())  # wherever lines are broken
    assert "serve_jpeg" in shown and "8 given images" in shown


@pytest.mark.needs("onnxruntime", "tf2onnx")
@pytest.mark.parametrize("kind", ["float", "quantized", "mixed"])
def test_onnx_answers_as_keras(model, kind, tmp_path):
    import onnxruntime as runtime

    given = {"float": model, "quantized": quantize_model(model), "mixed": tiny(dtype="mixed_float16")}[kind]
    report = export_onnx(given, tmp_path / "m.onnx", verify=images(4), verbose=False)
    assert report.parity.max_difference < 1e-5
    session = runtime.InferenceSession(tmp_path / "m.onnx")
    assert session.get_inputs()[0].name == "image" and session.run(None, {"image": images(3)})[0].shape == (3, 5)


def test_onnx_missing_names_the_extra(model, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tf2onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'keras_mobilenets\[onnx\]'"):
        export_onnx(model, tmp_path / "m.onnx")
