"""Weights by name on the Hugging Face hub: from its cache, and from a server that answers alike."""

import contextlib
import http.server
import logging
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from support import hub_cache
from support.random_variables import random_variables

from cnn_papers.errors import UserError
from cnn_papers.models import resnet
from cnn_papers.weights import hub, initial, weight_files
from configs import resnet as recipes

constants = pytest.importorskip("huggingface_hub.constants")
NAME = "hf:ann/net"
TOKEN = "give a token, with hf auth login or the variable HF_TOKEN"
OTHER = "b" * 40


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    return tmp_path / "hub"


@pytest.mark.parametrize(
    ("weights", "content"),
    [
        (NAME, b"newest"),
        (f"{NAME}@main", b"newest"),
        (f"{NAME}@v1", b"of v1"),
        (f"{NAME}@{OTHER}", b"of v1"),
        (f"{NAME}/other.pth", b"other"),
        ("hf:ann/older", b"a pickle"),
    ],
)
def test_a_file_in_the_cache_needs_no_network(cache, caplog, weights, content):
    files = {"model.safetensors": b"newest", "pytorch_model.bin": b"-", "other.pth": b"other"}
    hub_cache.write(cache, "ann/net", files)
    hub_cache.write(cache, "ann/net", {"model.safetensors": b"of v1"}, commit=OTHER, branch="v1")
    hub_cache.write(cache, "ann/older", {"pytorch_model.bin": b"a pickle"})
    caplog.set_level(logging.INFO, "cnn_papers")
    path = hub.local_path(weights)
    assert path.read_bytes() == content
    assert caplog.messages == [f"weights {weights} are in {path}"]


def test_a_path_is_itself(tmp_path):
    assert hub.local_path(tmp_path / "hf" / "a.pth") == tmp_path / "hf" / "a.pth"


@pytest.mark.parametrize(
    "weights", ["hf:", "hf:net", "hf:/net", "hf:ann/", "hf:ann/net@", "hf:a b/c"]
)
def test_what_is_no_name_is_refused(weights):
    with pytest.raises(UserError, match=f"weights {weights}: a name on the hub is hf:OWNER/NAME"):
        hub.local_path(weights)


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(hub.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="need pip install huggingface_hub"):
        hub.local_path(NAME)


def test_offline_what_is_not_in_the_cache_is_missed(cache):
    hub_cache.write(cache, "ann/net", {"model.safetensors": b"newest"})
    text = f"weights {NAME}@v2: the cache {cache} does not have them, and HF_HUB_OFFLINE forbids"
    with pytest.raises(UserError, match=text):
        hub.local_path(f"{NAME}@v2")


# --- a server -------------------------------------------------------------------------------------

HERE = {"ETag": '"1234"', "X-Repo-Commit": hub_cache.COMMIT}
ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "ann/net/resolve/main/model.safetensors": (200, HERE, b"newest"),
    "ann/older/resolve/main/model.safetensors": (
        404,
        {**HERE, "X-Error-Code": "EntryNotFound"},
        b"",
    ),
    "ann/older/resolve/main/pytorch_model.bin": (200, HERE, b"a pickle"),
    "ann/empty/": (404, {**HERE, "X-Error-Code": "EntryNotFound"}, b""),
    "ann/gated/": (403, {"X-Error-Code": "GatedRepo"}, b""),
    "ann/net/resolve/v9/": (404, {"X-Error-Code": "RevisionNotFound"}, b""),
    "ann/secret/": (401, {"X-Error-Message": "Invalid credentials in Authorization header"}, b""),
    "": (404, {"X-Error-Code": "RepoNotFound"}, b""),
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, *, with_body):
        status, headers, body = next(
            answer for path, answer in ANSWERS.items() if self.path[1:].startswith(path)
        )
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body if with_body else b"")

    def log_message(self, *args):
        """Prints nothing."""


@contextlib.contextmanager
def serving() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def use(address: str, monkeypatch: Any) -> None:
    """Makes an address that of the hub."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def server(monkeypatch):
    with serving() as address:
        use(address, monkeypatch)
        yield address


@pytest.mark.parametrize(("weights", "content"), [(NAME, b"newest"), ("hf:ann/older", b"a pickle")])
def test_a_file_is_downloaded_once(server, cache, monkeypatch, weights, content):
    path = hub.local_path(weights)
    assert path.read_bytes() == content and cache in path.parents
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.local_path(weights) == path


@pytest.mark.fault(
    "config: weights that the hub does not have, or not for everybody",
    "refused with the reason: the name, the revision, the file or the token",
)
@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ("hf:ann/nett", f"the hub has no such repository; if it is private, {TOKEN}"),
        (f"{NAME}@v9", "the repository has no revision 'v9': {server}/ann/net/commits lists them"),
        ("hf:ann/empty", "the repository has no model.safetensors and no pytorch_model.bin"),
        ("hf:ann/empty/a.pth", "the repository has no a.pth"),
        ("hf:ann/gated", "access is granted on {server}/ann/gated; then " + TOKEN),
        ("hf:ann/secret", f"the hub refuses the token: {TOKEN}"),
    ],
)
def test_what_the_hub_refuses_is_said_in_a_line(server, weights, reason):
    with pytest.raises(UserError) as caught:
        hub.local_path(weights)
    assert str(caught.value) == f"weights {weights}: {reason.format(server=server)}"


@pytest.mark.fault(
    "config: no network to download weights", "taken from the cache, or refused with its folder"
)
def test_without_a_network_the_cache_serves_or_the_address_is_named(cache, monkeypatch):
    with serving() as address:
        pass  # nothing listens there any more
    use(address, monkeypatch)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub_cache.write(cache, "ann/older", {"pytorch_model.bin": b"a pickle"})
    assert hub.local_path("hf:ann/older").read_bytes() == b"a pickle"
    text = (
        f"weights {NAME}: the cache {cache} does not have them, and {address} cannot be reached: "
    )
    with pytest.raises(UserError, match=text):
        hub.local_path(NAME)


# --- weights in use -------------------------------------------------------------------------------


def test_a_run_starts_from_a_name_and_what_does_not_fit_is_refused_by_it(cache, tmp_path, capsys):
    model, shape = resnet.Model("cifar-8", blocks=(1,), widths=(8,)), (32, 32, 3)
    variables = random_variables(model, shape)
    weight_files.write(tmp_path / "net.safetensors", variables, "resnet", model)
    hub_cache.write(
        cache, "ann/net", {"model.safetensors": (tmp_path / "net.safetensors").read_bytes()}
    )
    config = recipes.get_config()
    config.init_from = NAME
    arrays = initial.read(config, model, shape, tuple("0123456789"))
    assert f"starts from 7 layers of {NAME}" in capsys.readouterr().out
    np.testing.assert_array_equal(
        arrays["params/conv1/kernel"], variables["params"]["conv1"]["kernel"]
    )
    read, _ = weight_files.read_variables(NAME, "resnet", model, shape)
    jax.tree.map(np.testing.assert_array_equal, read["params"], variables["params"])
    wider = resnet.Model("cifar-8", blocks=(1,), widths=(16,))
    with pytest.raises(UserError, match=f"weights {NAME} .*of another network: "):
        weight_files.read_variables(NAME, "resnet", wider, shape)
