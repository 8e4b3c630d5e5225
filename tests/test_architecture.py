"""The rules of the house, read off the source: who may import whom, how long a file may be, what a file must have."""

import ast
import functools
import importlib.util
import pathlib
from typing import NamedTuple

import pytest

import configs

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted(
    str(path.relative_to(ROOT)) for room in ("cnn_papers", "configs", "launch") for path in (ROOT / room).rglob("*.py")
)
MODELS = [
    file
    for file in FILES
    if file.startswith("cnn_papers/models/") and not file.endswith(("__init__.py", "/columns.py", "/layers.py"))
]
CONFIGS = [file for file in FILES if file.startswith("configs/") and not file.endswith(("__init__.py", "/common.py"))]
CLAIMS = [file for file in CONFIGS if file.startswith("configs/claims/")]
PAPERS = [file for file in CONFIGS if file not in CLAIMS]
LIMITS = {"cnn_papers/train.py": 250, **dict.fromkeys(MODELS + CONFIGS, 200)}  # lines; 300 for any other
FUNCTION_LIMIT = 60
# What every room may use.
SHARED = {f"cnn_papers{name}" for name in ("", ".errors", ".facts", ".files", ".opstrings", ".terminal")}
ROOMS = {  # what of ours the files of a room may import besides
    "cnn_papers/models/": {"cnn_papers.models", "cnn_papers.models.shared.columns", "cnn_papers.models.shared.layers"},
    "cnn_papers/data/": {"cnn_papers.data"},
    "cnn_papers/training/": {"cnn_papers.training"},
    "cnn_papers/evaluators/": {
        "cnn_papers.evaluators",
        "cnn_papers.data",
        "cnn_papers.training.losses",
        "cnn_papers.parallel.mesh",
    },
    "configs/": {"configs", "configs.common", "cnn_papers.facts", "cnn_papers.errors"},
    "configs/claims/": {"configs.common", "configs.claims.common", "cnn_papers.facts"},
}
OUTSIDE = {  # packages that only these may import; a folder stands for its files
    "tensorflow": ("cnn_papers/prepare.py", "cnn_papers/benchmarks/other_pipelines.py"),
    "tensorflow_datasets": ("cnn_papers/prepare.py", "cnn_papers/data/"),
    "grain": ("cnn_papers/prepare.py", "cnn_papers/data/"),
    "ml_collections": ("cnn_papers/doors.py", "configs/common.py", "launch/"),
}


class Import(NamedTuple):
    """One name that a file imports, as a module where there is one of that name."""

    module: str
    line: int


@functools.cache
def parsed(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(), file)


@functools.cache
def imports(file: str) -> list[Import]:
    """All imports of a file, those within functions and `importlib.import_module("…")` too."""
    found = []
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: write whole paths, not relative ones"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.append(Import(whole if is_module(whole) else str(node.module), node.lineno))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
            found += [Import(str(name.value), node.lineno) for name in node.args if isinstance(name, ast.Constant)]
    return found


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def ours(file: str) -> list[Import]:
    return [found for found in imports(file) if found.module.split(".")[0] in ("cnn_papers", "configs", "launch")]


def functions(file: str) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(parsed(file)) if isinstance(node, ast.FunctionDef)]


def is_door(file: str) -> bool:
    """Whether the file is a command, or what all commands share."""
    names = {node.id for node in ast.walk(parsed(file)) if isinstance(node, ast.Name)}
    return file == "cnn_papers/doors.py" or (file.count("/") == 1 and "__name__" in names)


each_file = pytest.mark.parametrize("file", FILES)


def test_the_rules_see_the_files():
    """So that a moved folder cannot make everything below hold of nothing."""
    assert {"cnn_papers/main.py", "cnn_papers/models/googlenet.py", "cnn_papers/data/pipeline.py"} <= set(FILES)
    assert "cnn_papers/models/googlenet.py" in MODELS and "configs/googlenet.py" in PAPERS
    assert "configs/claims/googlenet.py" in CLAIMS
    assert "cnn_papers.models.shared.layers" in [found.module for found in ours("cnn_papers/models/googlenet.py")]
    assert "grain" in [found.module for found in imports("cnn_papers/data/prefetch.py")]  # within a function
    assert "cnn_papers.data.digits" in [found.module for found in imports("cnn_papers/data/sources.py")]  # as a string
    assert is_door("cnn_papers/main.py") and not is_door("cnn_papers/train.py")


@each_file
def test_a_room_imports_only_what_it_may(file):
    if rooms := [room for room in ROOMS if file.startswith(room)]:
        allowed = ROOMS[max(rooms, key=len)]  # of a room within a room, the inner one's
        may = allowed | (SHARED if not file.startswith("configs/") else set())
        whole_rooms = {name for name in allowed if (ROOT / name.replace(".", "/")).is_dir()} - {"cnn_papers.models"}
        for module, line in ours(file):
            parts = module.split(".")
            inside = any(".".join(parts[:n]) in whole_rooms for n in range(2, len(parts) + 1))
            assert module in may or inside, f"{file}:{line} may not import {module}"


@pytest.mark.parametrize("file", MODELS)
def test_a_paper_needs_no_other_paper(file):
    assert {found.module for found in ours(file)} <= {
        "cnn_papers.facts",
        "cnn_papers.models.shared.columns",
        "cnn_papers.models.shared.layers",
    }


@each_file
def test_no_room_imports_a_door(file):
    doors = {door.removesuffix(".py").replace("/", ".") for door in FILES if is_door(door)}
    if not is_door(file):
        assert not doors & {found.module for found in ours(file)}


@each_file
def test_some_packages_stay_behind_their_doors(file):
    for module, line in imports(file):
        places = OUTSIDE.get(module.split(".")[0])
        assert places is None or file.startswith(places), f"{file}:{line} may not import {module}"
        if module.startswith("absl") and "flags" in ast.unparse(parsed(file)):
            assert is_door(file) or file.startswith("launch/"), f"{file}:{line}: only doors know flags"


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.startswith(tuple(ROOMS)) and not file.startswith("configs/")]
)
def test_a_config_stops_at_train(file):
    """Below it, functions take plain arguments."""
    for function in functions(file):
        names = [
            argument.arg for argument in [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        ]
        assert "config" not in names or file == "cnn_papers/runs/workdir.py", f"{file}:{function.lineno}"


@each_file
def test_a_file_is_short_and_so_are_its_functions(file):
    lines = len((ROOT / file).read_text().splitlines())
    assert lines <= LIMITS.get(file, 300), f"{file} has {lines} lines"
    for function in functions(file):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= FUNCTION_LIMIT, f"{file}:{function.lineno}: {function.name} has {length} lines"


@each_file
def test_the_first_line_says_what_the_file_is_for(file):
    docstring = ast.get_docstring(parsed(file))
    assert docstring and docstring.splitlines()[0].strip(), f"{file} has no docstring"


@each_file
def test_what_others_use_is_documented(file):
    """Public functions and classes of a module, not their methods or what is defined within a function."""
    for node in parsed(file).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{file}:{node.lineno}: {node.name} has no docstring"


@each_file
def test_what_must_not_be_there_is_not(file):
    assert pathlib.Path(file).name not in ("utils.py", "util.py", "helpers.py", "misc.py")
    text = (ROOT / file).read_text()
    assert not [word for word in ("TODO", "FIXME", "XXX", "NotImplementedError", "../shared") if word in text]
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.keyword):
            assert node.arg != "feature_group_count", f"{file}:{node.value.lineno}: replicated over a mesh"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{file}:{node.lineno}: a bare except"
            assert not all(isinstance(part, ast.Pass) for part in node.body), f"{file}:{node.lineno}: error swallowed"
        assert not isinstance(node, ast.Global), f"{file}: module-level state"


@pytest.mark.parametrize("file", MODELS)
def test_a_paper_says_where_it_deviates(file):
    assert "Deviations:" in (ast.get_docstring(parsed(file)) or "")
    names = {
        target.id
        for node in parsed(file).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    names |= {
        node.target.id
        for node in parsed(file).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert {"VARIANTS", "FACTS"} <= names
    assert "Model" in {node.name for node in parsed(file).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


@pytest.mark.parametrize("file", PAPERS)
def test_a_config_names_a_network_that_is_there(file):
    spec = importlib.util.find_spec(f"configs.{pathlib.Path(file).stem}")
    assert (
        spec is not None and spec.origin == str(ROOT / file) and pathlib.Path(configs.__path__[0]) == ROOT / "configs"
    )
    used = {
        node.args[0].value
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "common.base"
        and isinstance(node.args[0], ast.Constant)
    }
    assert used and {f"cnn_papers/models/{name}.py" for name in used} <= set(MODELS)
