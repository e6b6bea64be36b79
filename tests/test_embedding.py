"""Embedding is a task: figures against their definitions, the loss against its formula."""

import itertools
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from runs import write_colours
from typer.testing import CliRunner

from keras_mobilenets.cli import app
from keras_mobilenets.data import load_identities, read_image, scan_identities
from keras_mobilenets.export import export_tflite
from keras_mobilenets.quantization import quantize_model
from keras_mobilenets.tasks import Embedding, task_of, verification
from keras_mobilenets.tasks.contrastive import ContrastiveLoss
from keras_mobilenets.tflite import TFLiteModel
from keras_mobilenets.training import Checkpoint, fit, quantize_aware


@pytest.fixture
def vectors(rng):
    """Twelve identities, six pictures each, far from told apart perfectly; one more picture that is alone."""
    labels = np.append(np.repeat(np.arange(12), 6), 40)
    return rng.normal(size=(13, 16))[np.minimum(labels, 12)] + rng.normal(size=(73, 16)), labels


def test_the_figures_are_those_of_their_definitions(vectors, monkeypatch):
    raw, labels = vectors
    monkeypatch.setattr("keras_mobilenets.tasks.similarity.BLOCK", 10)  # blocks that do not go around
    task = Embedding(16)
    answers = task.decode(raw)
    cosines = answers @ answers.T
    order = [[j for j in np.argsort(-row) if j != i] for i, row in enumerate(cosines)]
    right = np.array([[labels[j] == labels[i] for j in near[:5]] for i, near in enumerate(order)])
    found = task.score(answers, labels)
    assert found["recall_at_1"] == pytest.approx(right[:72, 0].mean())
    assert found["recall_at_5"] == pytest.approx(right[:72].any(1).mean())
    assert found["known_by_one"] is None  # one identity has no second picture
    assert task.hits(answers, labels)[:72].tolist() == right[:72, 0].tolist() and task.hits(answers, labels)[72] == 1
    assert task.by_class(answers, labels)[3]["right"] == right[18:24, 0].sum()
    pairs = [(i, j) for i in range(73) for j in range(i)]
    one, other = (answers[list(part)] for part in zip(*pairs, strict=True))
    same = np.array([labels[i] == labels[j] for i, j in pairs])
    by_pairs = verification(one, other, same)
    assert found["tar_at_far_0.001"] == pytest.approx(by_pairs["tar"])
    at = [((one * other).sum(-1) > t).astype(bool) for t in np.linspace(-1, 1, 4001)]
    assert by_pairs["accuracy"] == pytest.approx(max((taken == same).mean() for taken in at), abs=1e-3)  # the grid
    assert by_pairs["tar"] == max(taken[same].mean() for taken in at if taken[~same].mean() <= 1e-3)
    once = np.delete(np.arange(73), 72)
    shares = []
    for k in range(6):
        known = np.arange(12) * 6 + k
        asked = np.setdiff1d(once, known)
        shares.append((cosines[np.ix_(asked, known)].argmax(1) == labels[asked]).mean())
    assert task.score(answers[once], labels[once])["known_by_one"] == pytest.approx(np.mean(shares))
    ((false, true),) = task.curves(answers, labels, [])[0].lines.values()
    for threshold in (-0.5, 0.0, 0.5):
        place = round((1 - threshold) * 1000) - 1  # of 2000 steps from 1 down to -1
        taken = (one * other).sum(-1) > threshold
        assert false[place] == pytest.approx(taken[~same].mean(), abs=2e-3)  # one or two pairs on the edge of a step
        assert true[place] == pytest.approx(taken[same].mean(), abs=2e-3 + 1 / same.sum())


def test_what_cannot_be_said_is_not(vectors):
    raw, labels = vectors
    task = Embedding(16)
    assert set(task.score(raw, np.arange(73)).values()) == {None}  # no two of one identity
    assert set(task.score(raw, np.full(73, -1)).values()) == {None}
    assert task.by_class(raw, np.full(73, -1)) == {} and np.all(task.hits(raw, np.full(73, -1)) == 1)
    assert task.score(raw[:12], labels[:12])["tar_at_far_0.001"] is None  # of 36 pairs no thousandth
    one = task.score(raw[:1], labels[:1])
    assert set(one.values()) == {None}
    for problem, arguments in {
        "far=0": {"far": 0},
        "only one kind": {"same": [True] * 3},
        "pairs": {"same": [1]},
    }.items():
        with pytest.raises(ValueError, match=problem):
            verification(raw[:3], raw[3:6], **{"same": [True, False, True], **arguments})
    for arguments in ({"dimension": 1}, {"temperature": 0}):
        with pytest.raises(ValueError, match="must be >"):
            Embedding(**arguments)


def test_agreement_is_the_cosine_and_answers_have_length_one(vectors):
    raw, _ = vectors
    task = Embedding(16)
    answers = task.decode({"embedding": 7 * raw[:, None, None]})
    assert np.allclose(np.linalg.norm(answers, axis=-1), 1)
    assert np.allclose(task.agreement(answers, raw), 1)
    assert np.all(task.agreement(answers, -raw) == 0)
    assert np.all(task.decode(np.zeros((2, 16))) == 0)  # no direction, and no NaN


def test_the_loss_is_that_of_the_formula(rng):
    vectors, labels = rng.normal(size=(7, 5)).astype("float32"), np.array([0, 1, 0, 0, 1, 2, -1])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    powers = np.exp(unit @ unit.T / 0.2)
    expected = np.zeros(7)
    for i in range(7):
        others = [a for a in range(7) if a != i]
        right = [p for p in others if labels[p] == labels[i] >= 0]
        if right:
            expected[i] = -np.mean([np.log(powers[i, p] / powers[i, others].sum()) for p in right])
    loss = ContrastiveLoss(0.2, reduction=None)
    assert np.allclose(loss(labels, vectors), expected, atol=1e-5)  # float32
    assert loss(labels[:, None], vectors).shape == (7,)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.temperature == 0.2


def test_a_model_says_that_it_gives_an_embedding_and_learns_one(tmp_path):
    """Identities that differ in colour, trained on six of them and asked about four others."""
    data = Pictures()
    inputs = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(8, 3, activation="relu")(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, Embedding(4).head({"8": maps}))
    assert task_of(model) == task_of(quantize_model(model)) == Embedding(4)
    assert task_of(keras.Model(inputs, Embedding(4, outputs=("other",)).head(maps))) != Embedding(4)
    before = model.get_weights()[-1].copy()
    history = fit(model, data, epochs=3).history
    assert not np.array_equal(before, model.get_weights()[-1])
    assert history["loss"][-1] < history["loss"][0] and 0 <= history["val_recall_at_1"][-1] <= 1
    student = keras.models.clone_model(model)
    taught = fit(student, data, teacher=model, epochs=3, learning_rate=0.01, checkpoint=Checkpoint(tmp_path / "run"))
    assert taught.history["val_loss"][-1] < taught.history["val_loss"][0]  # of the squared difference
    assert set(taught.history) >= {"distillation_loss", "val_recall_at_1"}
    model.trainable = True  # as a teacher it was not
    data.known = False  # pictures that nobody said anything of: a teacher is enough
    history = fit(student, data, teacher=model, epochs=1, keep_best=True, checkpoint=Checkpoint(tmp_path / "unknown"))
    assert "val_loss" in history.history and "val_recall_at_1" not in history.history
    export_tflite(quantize_aware(model, data, epochs=1), tmp_path / "one.tflite", strict=True, verbose=False)
    file = TFLiteModel(tmp_path / "one.tflite")
    assert task_of(file.file) == Embedding(4)
    images = data.val[0]
    alike = Embedding(4).agreement(
        Embedding(4).decode(file.predict(images)), Embedding(4).decode(model.predict(images))
    )
    assert alike.mean() > 0.99  # 8 bits


class Pictures:
    """Training data without files; three epochs of four batches."""

    batch_size, steps_per_epoch, val_count, known = 12, 4, 12, True

    @property
    def val(self):
        return self.batch(0, range(6, 10), 3)

    def train_from(self, epoch, step=0):
        return tf.data.Dataset.from_generator(
            lambda: (self.batch(1 + epoch * 4 + number, range(6), 2) for number in itertools.count(step)),
            output_signature=(tf.TensorSpec((12, 8, 8, 3), "float32"), tf.TensorSpec((12,), "int64")),
        )

    def batch(self, seed, identities, each):
        colors = np.random.default_rng(0).uniform(50, 200, (10, 3))
        labels = np.repeat(identities, each)
        noise = np.random.default_rng(seed).normal(scale=30, size=(len(labels), 8, 8, 3))
        pixels = np.clip(colors[labels][:, None, None] + noise, 0, 255).astype("float32")
        return pixels, labels if self.known else np.full(len(labels), -1)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Six identities that differ in colour, four pictures each."""
    folder = tmp_path_factory.mktemp("people")
    random = np.random.default_rng(0)
    for name in "abcdef":
        (folder / name).mkdir()
        color = random.uniform(60, 190, 3)
        for number in range(4):
            pixels = np.clip(color + random.normal(scale=20, size=(80, 80, 3)), 0, 255).astype("uint8")
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def test_whole_identities_are_held_out_and_come_two_by_two(people, tmp_path):
    data = load_identities(people, image_size=16, batch_size=8, augment="none", seed=3)
    assert (data.train_count, data.val_count, data.class_names) == (16, 8, tuple("abcdef"))
    train = [labels.numpy() for _, labels in data.train_from(0).take(4)]
    held = np.concatenate([labels.numpy() for _, labels in data.val])
    assert not set(held) & set(np.concatenate(train)) and len(set(held)) == 2
    assert all((one[::2] == one[1::2]).all() for one in train)
    again = [labels.numpy() for _, labels in data.train_from(1).take(2)]
    assert np.array_equal(again, train[2:])  # an epoch is the same wherever a run goes on
    scanned = scan_identities(people, seed=3)
    assert set(scanned.val.labels) == set(held)
    # Splits of one's own may be of different identities; those of a data set are drawn anew.
    for split, chosen in (("train", "abcd"), ("val", "ef")):
        for name in chosen:
            shutil.copytree(people / name, tmp_path / "own" / split / name)
    own = load_identities(tmp_path / "own", image_size=16)
    assert (own.train_count, own.val_count, own.class_names) == (16, 8, tuple("abcdef"))
    pixels, labels = np.zeros((24, 8, 8, 3), "uint8"), np.repeat(np.arange(6), 4)
    pixels[:, 0, 0, 0] = np.arange(24)
    given = load_identities(tf.data.Dataset.from_tensor_slices((pixels, labels)), image_size=16)
    assert (given.train_count, given.val_count) == (16, 8)
    alone = load_identities(people / "a", image_size=16, batch_size=2)  # of which nobody said who they are
    assert (alone.train_count, alone.val_count, alone.class_names) == (3, 1, ())
    assert next(iter(alone.train_from(0)))[1].numpy().tolist() == [-1, -1]
    shutil.rmtree(tmp_path / "own" / "val")
    for name in "abc":
        shutil.copytree(people / name, tmp_path / "three" / name)
    with pytest.raises(ValueError, match="at least 2 identities to train on and 2 .* Received: 3"):
        load_identities(tmp_path / "three")
    with pytest.raises(ValueError, match="mix_up"):
        load_identities(people, augment=["mix_up"])


def test_commands_on_both_kinds_of_files(people, tmp_path):
    """The colour of a picture is its vector, by a network that pools and no more."""
    inputs = keras.Input((16, 16, 3), name="image")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 127.5, -1)(inputs))
    layer = keras.layers.Dense(4, name="embedding")
    model = keras.Model(inputs, layer(pooled))
    model.save(tmp_path / "one.keras")
    pictures = np.stack([read_image(path, 16) for path in sorted(people.rglob("*.png"))])
    export_tflite(
        model, tmp_path / "one.tflite", quantize="int8", calibration=pictures.astype("float32"), verbose=False
    )
    (people / "a" / "broken.png").write_bytes(b"no picture")
    run = CliRunner()
    vectors = {}
    for name, output in (("one.keras", "a.npz"), ("one.tflite", "b.parquet")):
        done = run.invoke(app, ["embed", str(tmp_path / name), str(people), str(tmp_path / output)])
        assert done.exit_code == 0 and "24 vectors of 4 numbers" in done.output, done.output
        asked = ["search", str(tmp_path / name), str(tmp_path / output), str(people / "c" / "0.png"), "--json"]
        done = run.invoke(app, [*asked, "--top", "3", "--draw", str(tmp_path / "near.png")])
        near = json.loads(done.stdout)["nearest"]
        assert Path(near[0]["image"]).parent == people / "c" and near[0]["cosine"] == pytest.approx(1, abs=1e-3)
        assert Image.open(tmp_path / "near.png").size == (4 * 128, 128)
        done = run.invoke(app, ["evaluate", str(tmp_path / name), "--data", str(people), "--json"])
        assert json.loads(done.stdout)["recall_at_1"] > 0.5
        done = run.invoke(app, ["predict", str(tmp_path / name), str(people / "c" / "0.png"), "--json"])
        vectors[name] = json.loads(done.stdout)["embedding"][0]["vector"]
    assert np.dot(*vectors.values()) > 0.999  # 8 bits
    done = run.invoke(app, ["search", str(tmp_path / "one.keras"), str(people), str(people / "a" / "0.png")])
    assert str(people / "a" / "0.png") in done.output and done.exit_code == 0
    (people / "a" / "broken.png").unlink()
    for arguments in (["embed", "one.keras", "people", "x.csv"], ["search", "one.keras", "x.npz", "x.png"]):
        assert run.invoke(app, arguments).exit_code == 2


@pytest.mark.slow
def test_a_whole_run_and_a_teacher(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [
        "--task",
        "embedding",
        "--model",
        "MobileNet",
        "--alpha",
        "0.25",
        "--image-size",
        "16",
        "--epochs",
        "1",
        "--quantize-epochs",
        "1",
    ]
    assert CliRunner().invoke(app, ["train", *options, "--output", "one"]).exit_code == 0
    metrics = json.loads(Path("one/metrics.json").read_text())
    assert metrics["models"]["tflite"]["recall_at_1"] > 1 / 3 and metrics["tflite"]["is_integer"]
    assert "Verification" in Path("one/report.html").read_text()
    write_colours(Path("pictures").mkdir() or Path("pictures"), 3)
    for path in [*Path("pictures").glob("*/*")]:  # out of their folders: nobody says who they are
        path.rename(Path("pictures") / f"{path.parent.name}{path.name}")
    for data in ("digits", "pictures"):
        taught = [*options, "--output", f"of-{data}", "--teacher", "one/float.keras", "--data", data]
        done = CliRunner().invoke(app, ["train", *taught])
        assert done.exit_code == 0, done.output
    assert json.loads(Path("of-pictures/metrics.json").read_text())["models"]["tflite"]["recall_at_1"] is None
    done = CliRunner().invoke(app, ["train", *options, "--output", "three", "--data", "pictures"])
    assert done.exit_code == 1 and "by --teacher" in " ".join(done.output.split())
