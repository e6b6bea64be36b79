"""Whole files or none, and extras that name themselves."""

import pytest

from keras_mobilenets.utils import atomic_path, require


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def test_file_appears_whole_and_alone(tmp_path):
    with atomic_path(tmp_path / "new" / "model.tflite") as temporary:
        temporary.write_text("half")
        assert entries(tmp_path / "new") != ["model.tflite"]
        temporary.write_text("whole")
    assert entries(tmp_path / "new") == ["model.tflite"]
    assert (tmp_path / "new" / "model.tflite").read_text() == "whole"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), ValueError])
@pytest.mark.parametrize("folder", [False, True])
def test_old_one_stays_whole(tmp_path, error, folder):
    path = tmp_path / "model"
    for content in ("old", "new"):
        try:
            with atomic_path(path) as temporary:
                file = temporary / "file" if folder else temporary
                file.parent.mkdir(exist_ok=True)
                file.write_text(content)
                if content == "new":
                    raise error
        except (KeyboardInterrupt, OSError, ValueError):
            assert content == "new"
    assert entries(tmp_path) == ["model"]
    assert (path / "file" if folder else path).read_text() == "old"


def test_folder_takes_the_place_of_a_folder(tmp_path):
    for content in ("old", "new"):
        with atomic_path(tmp_path / "model") as temporary:
            temporary.mkdir()
            (temporary / content).touch()
    assert entries(tmp_path / "model") == ["new"]
    assert entries(tmp_path) == ["model"]


def test_missing_extra_gives_the_command():
    with pytest.raises(ImportError, match=r"pip install 'keras_mobilenets\[beam\]'"):
        require("no_such_module", "beam")
