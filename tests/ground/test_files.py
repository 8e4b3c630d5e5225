"""Paths that people write: home folders, addresses, names that are not UTF-8."""

import os
import pwd

import pytest

from cnn_papers import files
from cnn_papers.errors import UserError


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("~", "/home/ann"),
        ("~/runs/a b=c,d/", "/home/ann/runs/a b=c,d/"),
        ("~root/runs", f"{pwd.getpwnam('root').pw_dir}/runs"),
        ("~old.png", "~old.png"),  # a file of that name is there
        ("./~new.png", "./~new.png"),
        ("runs/~", "runs/~"),
        ("C:/runs", "C:/runs"),
        ("", ""),
    ],
)
def test_a_tilde_is_read_as_shells_read_it(path, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ann")
    (tmp_path / "~old.png").touch()
    assert files.expand(path) == expected


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (
            "~no-such-user/a",
            ": there is no user 'no-such-user'; a name that begins with ~ is written ./~name",
        ),
        (
            "~/a",
            ": your home folder is not known, set HOME; a name that begins with ~ is "
            "written ./~name",
        ),
        ("gs://bucket/a", " is an address: give a path on this machine"),
        ("file:///a", " is an address: give a path on this machine"),
    ],
)
def test_a_path_that_cannot_be_is_one_line(path, reason, no_home):
    with pytest.raises(UserError) as caught:
        files.expand(path, "--out=")
    assert str(caught.value) == f"--out={path}{reason}"


@pytest.mark.fault(
    "place: a workdir whose path is not UTF-8, which checkpoints need",
    "refused before anything is written",
)
def test_a_folder_that_checkpoints_cannot_be_written_to_is_refused(tmp_path):
    folder = tmp_path / os.fsdecode(b"r\xff") / "a"
    with pytest.raises(UserError) as caught, files.locked(folder):
        pass
    assert str(caught.value) == (
        f"workdir {folder} cannot be written to: its path is not UTF-8 in this locale; "
        "give another with --workdir"
    )
    assert not any(tmp_path.iterdir())
