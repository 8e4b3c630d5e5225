"""A run's folder: held by one process, of one configuration, with space for its checkpoints."""

import json
import os
import socket
import subprocess
import sys
import types

import jax
import pytest
from ml_collections import ConfigDict
from support import faults

from cnn_papers.errors import UserError
from cnn_papers.runs import workdir

# --- one process a folder -------------------------------------------------------------------------

HOLDING = """
import pathlib, sys
from cnn_papers.runs import workdir
with workdir.locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path`/run until its stdin closes."""
    command = [sys.executable, "-c", HOLDING, tmp_path / "run"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "held\n"
        yield child
        child.kill()


@pytest.mark.fault(
    "two runs: a second process", "refused at once with host, process and start of the first"
)
def test_a_second_process_is_refused_with_the_first_ones_name(tmp_path, holder):
    holder_name = f"process {holder.pid} on {socket.gethostname()}"
    message = rf"in use by {holder_name} since 20\d\d-.*; wait or give another"
    for _ in range(2):  # and asking does not take it away
        with pytest.raises(UserError, match=message), workdir.locked(tmp_path / "run"):
            pass
    holder.communicate()
    with workdir.locked(tmp_path / "run"):
        assert (tmp_path / "run" / ".lock").read_text().startswith(f"process {os.getpid()} on ")


@pytest.mark.fault("two runs: the holder was killed", "its lock is taken over")
def test_the_lock_of_a_killed_process_is_free(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert str(holder.pid) in (tmp_path / "run" / ".lock").read_text()
    with workdir.locked(tmp_path / "run"):
        pass


@pytest.mark.fault("two runs: the holder ended with an error", "its lock is free")
def test_the_lock_is_let_go_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), workdir.locked(tmp_path):
        raise ZeroDivisionError
    with workdir.locked(tmp_path):
        pass


@pytest.mark.fault(
    "full disk: a workdir that cannot be written to", "one line before the start, nothing touched"
)
def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with (
            pytest.raises(
                UserError,
                match=f"workdir {folder} cannot be written to: .*; give another with --workdir",
            ),
            workdir.locked(folder),
        ):
            pass
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.fault("full disk: a read-only disk", "one line before the start")
def test_a_read_only_folder(tmp_path):
    folder = tmp_path / "fixed"
    with faults.disk(folder, "ro,size=1m"):
        for run in (folder, folder / "run"):
            with (
                pytest.raises(UserError, match=f"workdir {run} cannot be written to: Read-only"),
                workdir.locked(run),
            ):
                pass


# --- one configuration a folder -------------------------------------------------------------------

CONFIG = ConfigDict(
    {
        "seed": 0,
        "task": "classify",
        "total_epochs": 2.0,
        "total_steps": 0,
        "log_every_steps": 50,
        "model": {"variant": "paper", "width": None},
        "data": {"data_dir": "", "name": "digits", "resident": "auto"},
        "optim": {"lr": 0.1, "lr_mults": (("fc8/.*", 10.0),), "wd_mults": ()},
        "checkpoint": {"every_steps": 50, "keep": 2},
        "mesh": {"data": -1},
    }
)


def _changed(key: str, value):
    config = ConfigDict(CONFIG.to_dict())
    *path, last = key.split(".")
    node = config
    for part in path:
        node = node[part]
    node[last] = value
    return config


def test_a_new_folder_and_the_same_configuration_pass(tmp_path):
    workdir.check_same_run(tmp_path, CONFIG)
    workdir.write_run(tmp_path, CONFIG, {"class_names": ("a", "b")})
    workdir.check_same_run(tmp_path, CONFIG)
    with_lists = ConfigDict(json.loads(json.dumps(CONFIG.to_dict())))  # instead of tuples
    workdir.check_same_run(tmp_path, with_lists)
    run = workdir.read_run(tmp_path)
    assert run.config.to_dict() == CONFIG.to_dict() and run.class_names == ("a", "b")
    assert run.versions["jax"] == jax.__version__
    assert run.versions["python"] == sys.version.split()[0]
    assert (run.train_image, run.total_steps, run.machine) == ((), 0, "")  # not recorded
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json"]


@pytest.mark.fault(
    "config: other seed, optimiser, architecture or data", "refused with the differences"
)
@pytest.mark.parametrize(
    "key, value, shown",
    [
        ("seed", 1, "seed: 0 there, 1 now"),
        ("optim.lr", 0.2, r"optim\.lr: 0\.1 there, 0\.2 now"),
        ("model.width", 0.5, r"model\.width: None there, 0\.5 now"),
        ("data.name", "mnist", r"data\.name: digits there, mnist now"),
        ("data.name", "", r"data\.name: digits there, '' now"),
        (
            "optim.lr_mults",
            (("fc8/.*", 20.0),),
            r"optim\.lr_mults: \(\('fc8/\.\*', 10\.0\),\) there, .* now",
        ),
        ("model.depth", 3, r"model\.depth: unset there, 3 now"),
    ],
)
def test_another_configuration_is_refused_with_the_difference(tmp_path, key, value, shown):
    workdir.write_run(tmp_path, CONFIG, {})
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(
        UserError,
        match=rf"holds a run of another configuration \({shown}\); give another with --work",
    ):
        workdir.check_same_run(tmp_path, _changed(key, value))
    assert (tmp_path / "run.json").read_bytes() == before


@pytest.mark.fault("config: other length, logging, saving, mesh or place of the data", "goes on")
@pytest.mark.parametrize(
    "key, value",
    [
        ("total_epochs", 3.0),
        ("total_steps", 10),
        ("log_every_steps", 1),
        ("data.data_dir", "/data"),
        ("data.resident", "never"),
        ("checkpoint.every_steps", 1),
        ("checkpoint.keep", 9),
        ("mesh.data", 1),
    ],
)
def test_what_does_not_change_a_run_may_differ(tmp_path, key, value):
    workdir.write_run(tmp_path, CONFIG, {})
    workdir.check_same_run(tmp_path, _changed(key, value))


@pytest.mark.parametrize("off", [0.0, 0, "", (), False, None])
def test_a_key_that_a_run_is_older_than_does_not_count_where_it_is_off(tmp_path, off):
    workdir.write_run(tmp_path, CONFIG, {})
    workdir.check_same_run(tmp_path, _changed("optim.new", off))
    with pytest.raises(UserError, match=r"optim\.new: unset there, 0\.1 now"):
        workdir.check_same_run(tmp_path, _changed("optim.new", 0.1))


def test_a_run_that_is_older_than_the_task_classifies(tmp_path):
    workdir.write_run(tmp_path, CONFIG, {})
    path = tmp_path / "run.json"
    run = json.loads(path.read_text())
    del run["config"]["task"]
    path.write_text(json.dumps(run))
    assert workdir.read_run(tmp_path).config.to_dict() == CONFIG.to_dict()
    workdir.check_same_run(tmp_path, CONFIG)
    with pytest.raises(UserError, match="task: classify there, regress now"):
        workdir.check_same_run(tmp_path, _changed("task", "regress"))


# --- the data of a run that goes on ---------------------------------------------------------------

CLASSES, IMAGES = ("cat", "dog", "owl"), (18, 9)


DIGESTS = ("1f", "2e")
RECORDED = {"class_names": CLASSES, "images": IMAGES, "digests": DIGESTS}


def on_data(
    folder,
    name,
    now="",
    *,
    class_names=CLASSES,
    images=IMAGES,
    digests=DIGESTS,
    recorded=RECORDED,
):
    """Writes a run on the data set `name`, then checks it as one that goes on with other data."""
    workdir.write_run(folder, _changed("data.name", name), recorded)
    before = (folder / "run.json").read_bytes()
    config = _changed("data.name", now or name)
    try:
        workdir.check_same_run(folder, config)
        workdir.check_same_data(folder, config, class_names, images, digests)
    finally:
        assert (folder / "run.json").read_bytes() == before


@pytest.mark.fault("config: other classes, or in another order", "refused with their names")
@pytest.mark.parametrize(
    "class_names, shown",
    [
        (("ant", "cat", "dog", "owl"), "new: ant"),
        (("cat", "owl"), "gone: dog"),
        (("cat", "dog", "eagle"), "new: eagle; gone: owl"),
        (("owl", "cat", "dog"), "the same in another order: class 0 was cat and is owl"),
    ],
)
@pytest.mark.parametrize("name", ["digits", "folder:birds"])
def test_other_classes_are_refused_by_name(tmp_path, name, class_names, shown):
    with pytest.raises(UserError) as refused:
        on_data(tmp_path, name, class_names=class_names)
    assert str(refused.value) == (
        f"workdir {tmp_path} holds a run with other classes ({shown}); "
        "give another with --workdir, or remove it"
    )


@pytest.mark.fault("config: other numbers of images of the same classes", "said; goes on")
@pytest.mark.parametrize(
    "images, ending",
    [
        ((24, 9), "24 images to train on and 9 to evaluate now; batches are others from here on\n"),
        ((18, 6), "18 images to train on and 6 to evaluate now\n"),
    ],
)
def test_other_numbers_of_images_are_said(tmp_path, capsys, images, ending):
    on_data(tmp_path, "folder:birds", images=images)
    assert capsys.readouterr().out == (
        f"the data has changed: 18 images to train on and 9 to evaluate before, {ending}"
    )


@pytest.mark.fault("config: the same images in another folder", "said; goes on")
@pytest.mark.parametrize("then, now", [("/a/x", "/b/x"), ("/a/x", "/a/x/"), ("x", "{cwd}/x")])
@pytest.mark.parametrize("form", ["folder", "voc_folder"])
def test_images_may_move(tmp_path, capsys, form, then, now):
    now = now.format(cwd=os.getcwd())
    on_data(tmp_path, f"{form}:{then}", f"{form}:{now}")
    assert (
        capsys.readouterr().out == f"the data has moved: {form}:{then} before, {form}:{now} now\n"
    )


@pytest.mark.fault("config: other images in another folder", "refused with the difference")
@pytest.mark.parametrize(
    "changed, shown",
    [
        ({"class_names": ("cat", "dog")}, "gone: owl"),
        (
            {"images": (19, 9)},
            "18 images to train on and 9 to evaluate there, "
            "19 images to train on and 9 to evaluate now",
        ),
        (
            {"digests": ("1f", "3d")},
            "as many images of the same classes, but other pixels or boxes",
        ),
        (  # an older run did not count them
            {"recorded": {"class_names": CLASSES}},
            "an unknown number of images there, 18 images to train on and 9 to evaluate now",
        ),
    ],
)
def test_another_folder_of_other_images_is_another_configuration(tmp_path, changed, shown):
    with pytest.raises(UserError) as refused:
        on_data(tmp_path, "folder:/a", "folder:/b", **changed)
    assert str(refused.value) == (
        f"workdir {tmp_path} holds a run of another configuration (data.name: folder:/a there, "
        f"folder:/b now; {shown}); give another with --workdir, or remove it"
    )


@pytest.mark.fault("config: as many other images in the folder of a run", "said; goes on")
def test_other_images_in_the_same_folder_are_said(tmp_path, capsys):
    on_data(tmp_path, "folder:/a", digests=("3d", "2e"))
    assert capsys.readouterr().out == (
        "the data has changed: as many images of the same classes, but other pixels or boxes\n"
    )


def test_one_folder_in_two_forms_is_not_the_same_data(tmp_path):
    with pytest.raises(UserError, match=r"data\.name: folder:/a there, voc_folder:/a now; as many"):
        on_data(tmp_path, "folder:/a", "voc_folder:/a", digests=("3d", "2e"))


def test_one_folder_under_another_name_may_have_other_images(tmp_path, capsys):
    on_data(tmp_path, "folder:/a", "folder:/a/", images=(19, 9))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "the data has moved",
        "the data has changed",
    ]


def test_what_an_older_run_did_not_record_is_not_compared(tmp_path, capsys):
    workdir.write_run(tmp_path, CONFIG, {})
    workdir.check_same_data(tmp_path, CONFIG, CLASSES, IMAGES, DIGESTS)
    workdir.write_run(tmp_path, CONFIG, {"class_names": CLASSES})
    workdir.check_same_data(tmp_path, CONFIG, CLASSES, IMAGES, DIGESTS)
    workdir.write_run(tmp_path, CONFIG, {"class_names": CLASSES, "images": IMAGES})
    workdir.check_same_data(tmp_path, CONFIG, CLASSES, IMAGES, DIGESTS)
    assert workdir.read_run(tmp_path).digests == () and capsys.readouterr().out == ""


def test_many_differences_are_counted(tmp_path):
    workdir.write_run(tmp_path, CONFIG, {})
    changes = {
        "seed": 1,
        "optim": {"lr": 1.0, "momentum": 0.5, "decay": 1.0},
        "model": {"variant": "x", "width": 1},
    }
    other = ConfigDict(CONFIG.to_dict() | changes)
    with pytest.raises(UserError, match=r"model.variant: .* and 4 more\)"):
        workdir.check_same_run(tmp_path, other)


@pytest.mark.fault("damage: `run.json`", "one line that names it")
@pytest.mark.parametrize("text", ["", "{", "[]", '{"versions": {}}'])
def test_a_damaged_run_json_is_one_line(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run.json cannot be read: "):
        workdir.check_same_run(tmp_path, CONFIG)


# --- space ----------------------------------------------------------------------------------------


@pytest.mark.fault(
    "full disk: too little space for the checkpoints",
    "one line with bytes free and needed, before the start",
)
def test_space_is_checked_before_it_runs_out(tmp_path, monkeypatch):
    monkeypatch.setattr(workdir.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=600))
    workdir.check_space(tmp_path, 100, keep=2)  # two and one under way, as many for the best
    with pytest.raises(
        UserError,
        match=f"workdir {tmp_path} has 600 bytes free; .* need 606: "
        "free some space, lower config.checkpoint.keep",
    ):
        workdir.check_space(tmp_path, 101, keep=2)
    with pytest.raises(UserError, match="need 700"):
        workdir.check_space(tmp_path, 100, keep=3)
    with pytest.raises(UserError, match="need 606"):
        workdir.check_space(tmp_path, 101, keep=1)  # two are kept anyhow


def test_checkpoints_that_are_there_already_need_no_more_space(tmp_path, monkeypatch):
    (tmp_path / "checkpoints" / "00000001").mkdir(parents=True)
    (tmp_path / "checkpoints" / "00000001" / "array").write_bytes(bytes(150))
    monkeypatch.setattr(workdir.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=450))
    workdir.check_space(tmp_path, 100, keep=2)
    with pytest.raises(UserError, match=r"has 450 bytes free; .* need 456"):
        workdir.check_space(tmp_path, 101, keep=2)


@pytest.mark.fault("damage: `run.json` is missing", "one line; the checkpoints are left alone")
def test_checkpoints_without_their_configuration_are_not_taken_up(tmp_path):
    (tmp_path / "checkpoints" / "00000005").mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds checkpoints but no run\.json"):
        workdir.check_same_run(tmp_path, CONFIG)
