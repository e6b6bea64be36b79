"""Whole files or none, nothing lost that is somebody else's, and extras that name themselves."""

import os

import pytest

from keras_mobilenets.utils import atomic_path, output_path, require, user_path


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def test_file_appears_whole_and_alone(tmp_path):
    with atomic_path(tmp_path / "new" / "model.tflite") as temporary:
        temporary.write_text("half")
        assert entries(tmp_path / "new") != ["model.tflite"]
        temporary.write_text("whole")
    assert entries(tmp_path / "new") == ["model.tflite"]
    assert (tmp_path / "new" / "model.tflite").read_text() == "whole"


def nothing(folder):
    return []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), ValueError])
@pytest.mark.parametrize("foreign", [None, nothing])
def test_old_one_stays_whole(tmp_path, error, foreign):
    path = tmp_path / "model"
    for content in ("old", "new"):
        try:
            with atomic_path(path, foreign=foreign) as temporary:
                file = temporary / "file" if foreign else temporary
                file.parent.mkdir(exist_ok=True)
                file.write_text(content)
                if content == "new":
                    raise error
        except (KeyboardInterrupt, OSError, ValueError):
            assert content == "new"
    assert entries(tmp_path) == ["model"]
    assert (path / "file" if foreign else path).read_text() == "old"


@pytest.mark.parametrize("name", ["model", "previous", "a name of 200 letters" * 10])
def test_folder_takes_the_place_of_a_folder(tmp_path, name):
    for content in ("old", "new"):
        with atomic_path(tmp_path / name, foreign=nothing) as temporary:
            temporary.mkdir()
            (temporary / content).touch()
    assert entries(tmp_path / name) == ["new"]
    assert entries(tmp_path) == [name]


@pytest.mark.parametrize(
    ("kind", "foreign", "shown"),
    [
        ("folder", None, "A file cannot take the place of .*, which is a folder"),
        ("folder", lambda folder: entries(folder), "holds 'a', 'b', 'c', 'd' and 1 more, which would be lost"),
        ("file", nothing, "A folder cannot take the place of .*, which is no folder"),
        ("pipe", None, "which is not a regular file"),
        ("pipe", nothing, "which is no folder"),
    ],
)
def test_what_is_not_ours_is_refused_before_and_after_the_work(tmp_path, kind, foreign, shown):
    path = tmp_path / "theirs"

    def work():
        with atomic_path(path, foreign=foreign) as temporary:
            temporary.touch()
            make()

    def make():
        if kind == "folder":
            path.mkdir()
            for name in "abcde":
                (path / name).touch()
        elif kind == "file":
            path.touch()
        else:
            os.mkfifo(path)

    with pytest.raises(FileExistsError, match=shown):
        work()
    assert entries(tmp_path) == ["theirs"]
    with pytest.raises(FileExistsError, match=shown):
        output_path(path, foreign=foreign)


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("foreign", [None, nothing])
def test_links_are_followed_and_modes_kept(tmp_path, there, foreign):
    link, target = tmp_path / "link", tmp_path / "elsewhere" / "target"
    target.parent.mkdir()
    link.symlink_to("elsewhere/target")
    if there:
        target.mkdir() if foreign else target.touch()
        target.chmod(0o750)
    with atomic_path(link, foreign=foreign) as temporary:
        temporary.mkdir() if foreign else temporary.write_text("new")
    assert link.is_symlink() and entries(target.parent) == ["target"]
    assert target.is_dir() if foreign else target.read_text() == "new"
    if there:
        assert target.stat().st_mode & 0o777 == 0o750


def test_link_to_itself_is_refused(tmp_path):
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(FileExistsError, match="not a regular file"):
        output_path(tmp_path / "link")


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with atomic_path("~/model.tflite") as temporary:
        temporary.touch()
    assert entries(tmp_path) == ["model.tflite"]
    assert str(user_path("not~/here")) == "not~/here"


def test_missing_extra_gives_the_command():
    with pytest.raises(ImportError, match=r"pip install 'keras_mobilenets\[beam\]'"):
        require("no_such_module", "beam")
