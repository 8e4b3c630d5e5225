"""Predictions from a run: every kind of image, mistakes by name, without data set or config."""

import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from support.image_folders import write_images

from cnn_papers import zoo
from cnn_papers.data import statistics
from cnn_papers.data.sources import open_split
from cnn_papers.errors import UserError
from cnn_papers.runs.checkpoint import Checkpoints
from cnn_papers.runs.rows import read_rows
from cnn_papers.tasks.classify import Totals
from cnn_papers.training.optim import Optimizer
from cnn_papers.training.step import State, init_state
from cnn_papers.weights import named_images, trained, weight_files
from cnn_papers.weights.predictor import Predictor, make_predictor, predict_images

# ml_collections reads configs with load_module
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
RED, BLUE, ORIENTATION = (200, 30, 40), (20, 60, 220), 0x112


def load(folder: pathlib.Path) -> Predictor:
    return make_predictor(trained.from_run(folder))


@pytest.fixture(scope="module")
def predictor(tiny_run) -> Predictor:
    return load(tiny_run)


def paths_of(arguments: list[str]) -> list[pathlib.Path]:
    return [image.path for image in named_images.find_images(arguments)]


def picture() -> np.ndarray:
    """Left half red, right half blue, white in the upper left corner: uint8 [32, 32, 3]."""
    pixels = np.empty((32, 32, 3), np.uint8)
    pixels[:, :16], pixels[:, 16:], pixels[:8, :8] = RED, BLUE, 255
    return pixels


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(kind: str) -> bytes:
    """Stored on its side, with the note that a viewer turns it by 90° clockwise."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return encode(Image.fromarray(np.rot90(picture()).copy()), kind, exif=exif, quality=95)


def with_alpha(image: Image.Image, alpha: int) -> Image.Image:
    image.putalpha(alpha)
    return image


def grey() -> np.ndarray:
    return np.asarray(Image.fromarray(picture()).convert("L"))


def on_white(pixels: np.ndarray, alpha: int) -> np.ndarray:
    return np.rint(pixels * (alpha / 255) + 255 - alpha)


RGB = Image.fromarray(picture())
TWO = Image.fromarray(picture()).quantize(3)
IMAGES: dict[
    str, tuple[bytes, np.ndarray, int]
] = {  # bytes, what a person sees, how far a value may be off
    "jpeg": (encode(RGB, "JPEG", quality=95, subsampling=0), picture(), 12),
    "progressive_jpeg": (
        encode(RGB, "JPEG", quality=95, subsampling=0, progressive=True),
        picture(),
        12,
    ),
    "cmyk_jpeg": (encode(RGB.convert("CMYK"), "JPEG", quality=95, subsampling=0), picture(), 14),
    "grey_jpeg": (encode(RGB.convert("L"), "JPEG", quality=95), grey()[..., None], 12),
    "turned_jpeg": (turned("JPEG"), picture(), 60),  # its colours are stored at half the size
    "turned_png": (turned("PNG"), picture(), 0),
    "png": (encode(RGB, "PNG"), picture(), 0),
    "rgba_png": (encode(with_alpha(RGB.convert("RGBA"), 128), "PNG"), on_white(picture(), 128), 1),
    "grey_alpha_png": (
        encode(with_alpha(RGB.convert("LA"), 64), "PNG"),
        on_white(grey(), 64)[..., None],
        1,
    ),
    "16_bit_png": (
        encode(Image.fromarray(grey().astype(np.uint16) * 257), "PNG"),
        grey()[..., None],
        0,
    ),
    "1_bit_png": (encode(Image.fromarray(grey() > 100), "PNG"), 255 * (grey() > 100)[..., None], 0),
    "palette_png": (encode(TWO, "PNG"), picture(), 0),
    "webp": (encode(RGB, "WEBP", lossless=True), picture(), 0),
    "turned_webp": (turned("WEBP"), picture(), 60),
    "bmp": (encode(RGB, "BMP"), picture(), 0),
    "palette_png_with_a_clear_colour": (
        encode(TWO, "PNG", transparency=TWO.getpixel((31, 31))),
        np.where((picture() == BLUE).all(-1, keepdims=True), 255, picture()),
        0,
    ),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_is_what_a_person_sees(predictor, kind):
    encoded, expected, tolerance = IMAGES[kind]
    pixels = predictor.prepare(encoded)
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8
    difference = np.abs(pixels.astype(int) - np.broadcast_to(expected, (32, 32, 3)))
    assert difference.max() <= tolerance


def test_predictions_make_the_error_that_the_run_reports(tiny_run, predictor, tmp_path):
    """Files of the whole test split, in other batches and programs than those of evaluation."""
    split = open_split("digits", "test", str(tiny_run.parent / "data"))
    labels = {}
    for i, example in enumerate(split.examples):
        (tmp_path / f"{i:03d}.png").write_bytes(example["image"])
        labels[f"{i:03d}.png"] = example["label"]
    results = list(predict_images(predictor, paths_of([str(tmp_path)])))
    assert [path.name for path, _ in results] == sorted(labels)
    wrong = sum(int(np.argmax(row)) != labels[path.name] for path, row in results)
    assert 100 * wrong / 360 == pytest.approx(
        read_rows(tiny_run / "metrics.jsonl")[-1]["val/top1_error"], abs=1e-4
    )
    assert predictor.class_names == tuple("0123456789")
    # A batch of as many images as devices, of which all but one are padding.
    single = dict(predict_images(predictor, [results[359][0]]))
    np.testing.assert_allclose(single[results[359][0]], results[359][1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose([np.sum(row) for _, row in results], 1, atol=1e-5)


def test_a_file_that_is_no_image_is_told_and_the_others_are_predicted(predictor, tmp_path):
    good, progressive = IMAGES["jpeg"][0], IMAGES["progressive_jpeg"][0]
    files = {
        "good.jpg": good,
        "truncated.jpg": good[: len(good) // 2],
        "progressive.jpg": progressive[:-20],
        "truncated.png": IMAGES["png"][0][:-30],
        "text.txt": b"not an image",
        "empty.png": b"",
        "good.png": IMAGES["png"][0],
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / name for name in [*files, "missing.jpg"]]
    results = {path.name: result for path, result in predict_images(predictor, paths)}
    assert list(results) == [path.name for path in paths]
    assert [name for name, result in results.items() if isinstance(result, np.ndarray)] == [
        "good.jpg",
        "good.png",
    ]
    assert results.pop("missing.jpg") == "cannot be read: No such file or directory"
    assert all(
        result.startswith("cannot be decoded")
        for result in results.values()
        if isinstance(result, str)
    )


def test_an_image_too_thin_to_be_scaled_is_told_and_the_others_are_predicted(run_copy, tmp_path):
    edit(run_copy, lambda run: run["config"]["data"].update(eval_host="decode"))
    thin = encode(Image.new("RGB", (600_000, 1)), "PNG")
    (tmp_path / "thin.png").write_bytes(thin)
    (tmp_path / "good.png").write_bytes(IMAGES["png"][0])
    paths = [tmp_path / name for name in ("good.png", "thin.png", "good.png")]
    first, told, last = (result for _, result in predict_images(load(run_copy), paths))
    assert told == "cannot be scaled: 19,200,000×32 pixels are more than 134,217,728"
    np.testing.assert_array_equal(first, last)


def test_nothing_but_broken_files(predictor, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    assert [
        type(result)
        for _, result in predict_images(predictor, [tmp_path / "a.png", tmp_path / "b.png"])
    ] == [str] * 2


def test_a_folder_means_its_images_by_name(tmp_path, caplog):
    """By their suffix, or by their first bytes if it is an unusual one."""
    names = ("b.JPG", "a.png", "c.jpeg", "e.webp", "f.bmp", "g.jfif", "h.jpe")
    for name in (*names, "notes.txt", "t.tiff", "u.tiff", ".hidden.png", "sub/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "i").write_bytes(IMAGES["jpeg"][0])
    (tmp_path / "j.gif").write_bytes(IMAGES["png"][0])
    arguments = ["x.tiff", str(tmp_path), str(tmp_path / "a.png")]
    listed = [str(tmp_path / name) for name in (*sorted(names), "i", "j.gif", "a.png")]
    with caplog.at_level("WARNING", "cnn_papers"):
        assert [*map(str, paths_of(arguments))] == [
            "x.tiff",
            *sorted(listed[:-1]),
            listed[-1],
        ]
    assert caplog.messages == [
        f"{tmp_path}: left out 3 files that are no JPEG, PNG, BMP or WebP: 2 .tiff, 1 .txt"
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no images \(JPEG, PNG, BMP or WebP\)"):
        named_images.find_images([str(tmp_path / "empty")])


# --- runs -----------------------------------------------------------------------------------------


@pytest.fixture
def run_copy(tiny_run, tmp_path) -> pathlib.Path:
    """A copy of the run, without its data, to be changed."""
    shutil.copytree(tiny_run, tmp_path / "run")
    edit(tmp_path / "run", lambda run: run["config"]["data"].update(data_dir="/nowhere"))
    return tmp_path / "run"


def edit(folder: pathlib.Path, change: Callable[[dict[str, Any]], Any]) -> None:
    run = json.loads((folder / "run.json").read_text())
    change(run)
    (folder / "run.json").write_text(json.dumps(run))


def test_images_of_another_size_than_the_runs_are_scaled_and_cropped(run_copy):
    edit(run_copy, lambda run: run["config"]["data"].update(eval_host="decode"))
    wide = Image.new("RGB", (300, 100), BLUE)
    wide.paste(RED, (100, 0, 200, 100))
    pixels = load(run_copy).prepare(encode(wide, "PNG"))
    np.testing.assert_array_equal(pixels, np.broadcast_to(RED, (32, 32, 3)))
    small = load(run_copy).prepare(encode(Image.new("RGB", (8, 9), RED), "PNG"))
    np.testing.assert_array_equal(small, np.broadcast_to(RED, (32, 32, 3)))


def test_the_last_checkpoint_serves_before_the_first_evaluation(run_copy):
    assert (
        load(run_copy).description
        == f"resnet 'cifar-8' trained on digits, step 3 in {run_copy / 'best'}"
    )
    shutil.rmtree(run_copy / "best")
    assert load(run_copy).description.endswith(f"step 3 in {run_copy / 'checkpoints'}")
    shutil.rmtree(run_copy / "checkpoints")
    with pytest.raises(UserError, match=r"there is no checkpoint in .*checkpoints"):
        load(run_copy)


def test_a_run_that_lacks_something(run_copy, tmp_path):
    with pytest.raises(UserError, match=r"there is no run in .*nothing"):
        load(tmp_path / "nothing")
    (run_copy / "statistics.npz").rename(tmp_path / "statistics.npz")
    with pytest.raises(UserError, match=r"run/statistics.npz is missing.*writes it again"):
        load(run_copy)
    edit(run_copy, lambda run: run.pop("eval_image"))
    with pytest.raises(UserError, match="run the training command again"):
        load(run_copy)
    (run_copy / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run.json cannot be read"):
        load(run_copy)


def test_outputs_beyond_the_class_names_have_numbers(run_copy):
    edit(run_copy, lambda run: run.update(class_names=["zero", "one"]))
    names = load(run_copy).class_names
    assert names == ("zero", "one", *(f"output {i}" for i in range(2, 10)))


@pytest.fixture(scope="module")
def averaged() -> State:
    """A fresh state of the run's network with a running average."""
    model = zoo.build_model("resnet", variant="cifar-8", num_classes=10, blocks=(1,), widths=(8,))
    optimizer = Optimizer(lambda params: {}, None, None, None)
    return jax.jit(
        lambda: init_state(
            model, optimizer, (32, 32, 3), jax.random.key(1), ema=True, totals=Totals
        )
    )()


def save_best(folder: pathlib.Path, state: State) -> None:
    """Makes `state` the best checkpoint of a run, and its recipe one with a running average."""
    shutil.rmtree(folder / "best")
    best = Checkpoints(folder / "best")
    best.save(7, state)
    best.close()
    edit(folder, lambda run: run["config"]["optim"].update(ema_decay=0.5))


def test_the_running_average_predicts_where_there_is_one(run_copy, averaged):
    params = jax.tree.map(lambda w: jnp.nan * w, averaged.params)
    save_best(
        run_copy, averaged._replace(params=params, ema=jax.tree.map(jnp.zeros_like, averaged.ema))
    )
    rows = load(run_copy).outputs(np.zeros((8, 32, 32, 3), np.uint8))
    np.testing.assert_allclose(rows, 0.1, rtol=1e-6)


def test_a_diverged_run_says_so(run_copy, averaged):
    save_best(run_copy, averaged._replace(ema=jax.tree.map(lambda w: jnp.nan * w, averaged.ema)))
    with pytest.raises(UserError, match="not finite: its training diverged"):
        load(run_copy).outputs(np.zeros((8, 32, 32, 3), np.uint8))


# --- the command ----------------------------------------------------------------------------------


def test_a_machine_with_the_run_alone(run_copy, tmp_path):
    """Another folder, one device instead of eight, no packages that read data or configs."""
    for name in ("jpeg", "png", "rgba_png"):
        (tmp_path / name).write_bytes(IMAGES[name][0])
    absent = "('tensorflow_datasets', 'grain', 'array_record', 'sklearn', 'configs', 'tensorboard')"
    code = (
        f"import sys; sys.modules |= dict.fromkeys({absent}); "
        "from cnn_papers.predict import cli; cli()"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "jpeg",
        "nope",
        "--workdir=run",
        "png",
        "rgba_png",
        "--top=3",
        "--json",
    ]
    paths = {"PYTHONPATH": str(pathlib.Path(__file__).parents[2]), "JAX_COMPILATION_CACHE_DIR": ""}
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **paths}, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == (
        "resnet 'cifar-8' trained on digits, step 3 in run/best\n"
        "error: nope cannot be read: No such file or directory\n"
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["image"] for row in rows] == ["jpeg", "png", "rgba_png"]
    for row in rows:
        chances = [each["probability"] for each in row["classes"]]
        assert (
            len(chances) == 3
            and chances == sorted(chances, reverse=True)
            and 0.3 < sum(chances) <= 1
        )
        assert all(each["class"] == str(each["label"]) for each in row["classes"])


def test_text_is_for_people(tiny_run, tmp_path, command):
    (tmp_path / "a.png").write_bytes(IMAGES["png"][0])
    code, out, err = command(f"--workdir={tiny_run}", str(tmp_path))
    assert (code, err) == (
        0,
        f"resnet 'cifar-8' trained on digits, step 3 in {tiny_run / 'best'}\n",
    )
    name, *lines = out.splitlines()
    assert name == str(tmp_path / "a.png") and len(lines) == 5
    chances = [float(line.split("%")[0]) for line in lines]
    assert chances == sorted(chances, reverse=True) and {line.split()[1] for line in lines} < set(
        "0123456789"
    )


def arrays_of(path):
    with np.load(path) as file:
        return dict(file)


def test_features_of_a_split_and_of_images(run_copy, tiny_run, tmp_path, command):
    """Both by themselves, and as the network's own endpoints say."""
    edit(run_copy, lambda run: run["config"]["data"].update(data_dir=str(tiny_run.parent / "data")))
    out = tmp_path / "deep" / "test.npz"
    code, text, _ = command(f"--workdir={run_copy}", "--layer=pool", f"--out={out}", "--split=test")
    assert (code, text) == (0, f"{out}: pool of digits[test], 360×1×1×8\n")
    written = arrays_of(out)
    split = open_split("digits", "test", str(tiny_run.parent / "data"))
    assert written["features"].dtype == np.float32 and written["features"].shape == (360, 1, 1, 8)
    assert written["label"].tolist() == [example["label"] for example in split.examples]
    assert written["class_names"].tolist() == list("0123456789")
    for i in (0, 359, 7):
        (tmp_path / f"{i}.png").write_bytes(split.examples[i]["image"])
    (tmp_path / "b.png").touch()
    arguments = [str(tmp_path / name) for name in ("0.png", "b.png", "359.png", "7.png")]
    code, _, err = command(f"--workdir={run_copy}", "--layer=pool", f"--out={out}", *arguments)
    assert code == 2 and "b.png cannot be decoded" in err
    images = arrays_of(out)
    assert images["path"].tolist() == [arguments[i] for i in (0, 2, 3)]
    np.testing.assert_allclose(
        images["features"], written["features"][[0, 359, 7]], rtol=1e-5, atol=1e-6
    )
    network = trained.from_run(run_copy)
    image = np.stack([make_predictor(network).prepare(split.examples[7]["image"])])
    seen = network.normalise(image, jax.random.key(0))
    _, ends = jax.jit(network.model.apply)(network.variables, seen)
    np.testing.assert_allclose(written["features"][7], ends["pool"][0], rtol=1e-5, atol=1e-6)


def test_features_are_of_the_data_set_that_the_command_names(tiny_run, tmp_path, command):
    """With a run too, whose own data set it would be otherwise."""
    name, out = write_images(tmp_path / "images", {"3": 2, "7": 1}), tmp_path / "test.npz"
    arguments = [f"--workdir={tiny_run}", "--layer=pool", f"--out={out}", "--split=test"]
    overrides = ["--config=configs/resnet.py", f"--config.data.name={name}"]
    code, text, _ = command(*arguments, *overrides)
    assert (code, text) == (0, f"{out}: pool of {name}, 3×1×1×8\n")
    assert sorted(arrays_of(out)["label"].tolist()) == [3, 3, 7]


def test_features_that_cannot_be(tiny_run, tmp_path, command):
    (tmp_path / "b.png").touch()
    (tmp_path / "good.png").write_bytes(IMAGES["png"][0])
    (tmp_path / "folder.npz").mkdir()
    out = f"--out={tmp_path / 'f.npz'}"
    for arguments, message in {
        (
            "--layer=fc7",
            out,
            "b.png",
        ): "the network has no layer 'fc7'; there are: conv1, conv2_1, pool, fc",
        ("--layer=fc", out, str(tmp_path / "b.png")): "none of the images could be read",
        ("--layer=fc", out, "--split=tset"): "digits has no split 'tset'",
        (
            "--layer=fc",
            "--out=/proc/nowhere/f.npz",
            str(tmp_path / "good.png"),
        ): "cannot write /proc/nowhere/f.npz",
        (
            "--layer=fc",
            f"--out={tmp_path}/folder.npz",
            str(tmp_path / "good.png"),
        ): "it exists and is not a file",
        (
            "--layer=fc",
            f"--out={tmp_path}/f.png",
            str(tmp_path / "good.png"),
        ): "the name of a file of features ends in",
    }.items():
        code, _, err = command(f"--workdir={tiny_run}", *arguments)
        assert code == 2 and message in err.splitlines()[-1], err
        assert not (tmp_path / "f.npz").exists() and "Traceback" not in err


def test_weights_from_a_file_predict_as_the_run_does(run_copy, tiny_run, tmp_path, command):
    """Exported, then read with a config that states the statistics of the training images."""
    network = trained.from_run(run_copy)
    weight_files.write(tmp_path / "net.safetensors", network.variables, "resnet", network.model)
    (tmp_path / "a.png").write_bytes(IMAGES["png"][0])
    _, expected, _ = command(f"--workdir={run_copy}", str(tmp_path / "a.png"), "--json")
    pixels = statistics.load(run_copy / "statistics.npz")
    mean, std = (tuple(map(float, values)) for values in (pixels.mean, pixels.std))
    arguments = [
        "--config=configs/resnet.py",
        f"--weights={tmp_path / 'net.safetensors'}",
        "--config.model.blocks=(1,)",
        "--config.model.widths=(8,)",
        str(tmp_path / "a.png"),
        "--json",
    ]
    code, _, err = command(*arguments)
    assert (
        code == 2
        and "config.data.eval_device='standardize' needs statistics of training images" in err
    )
    code, out, err = command(*arguments, f"--config.data.eval_device=normalize({mean}, {std})")
    assert code == 0, err
    for one, other in zip(json.loads(out)["classes"], json.loads(expected)["classes"], strict=True):
        assert one["class"] == other["class"]
        assert one["probability"] == pytest.approx(other["probability"], rel=1e-5)


def test_more_classes_than_there_are(tiny_run, tmp_path, command):
    (tmp_path / "a.png").write_bytes(IMAGES["png"][0])
    code, out, _ = command(f"--workdir={tiny_run}", str(tmp_path / "a.png"), "--top=99", "--json")
    assert code == 0
    assert sorted(each["label"] for each in json.loads(out)["classes"]) == list(range(10))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "write python -m cnn_papers.predict --workdir=RUN IMAGE…"),
        (["--workdir=run"], "write python -m cnn_papers.predict --workdir=RUN IMAGE…"),
        (
            ["--workdir=run", "--weights=a.pth", "a.png"],
            "write python -m cnn_papers.predict --workdir=RUN IMAGE…",
        ),
        (
            ["--workdir=run", "--split=test", "a.png"],
            "write python -m cnn_papers.predict --workdir=RUN IMAGE…",
        ),
        (["--workdir=run", "--layer=fc", "a.png"], "--layer=NAME and --out=FILE.npz go together"),
        (["--workdir=run", "--split=test"], "--layer=NAME and --out=FILE.npz go together"),
        (["--weights=a.pth", "a.png"], "--config is missing"),
        (["--workdir=nowhere", "a.png"], "there is no run in nowhere"),
        (["--workdir=run", "--top=0", "a.png"], "flag --top=0: 0 is not a positive integer"),
        (["--wrkdir=run", "a.png"], "Unknown command line flag 'wrkdir'. Did you mean: workdir"),
    ],
)
def test_mistakes_are_one_line(command, arguments, message):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}") and err.count("\n") == 1
