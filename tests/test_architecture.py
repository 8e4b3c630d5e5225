"""The rules of the house, read off the source: who may import whom, and what a file must have.

Each test collects the places that break its rule, and finds none.
"""

import ast
import functools
import importlib.util
import pathlib
from typing import NamedTuple

import configs

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted(
    str(path.relative_to(ROOT))
    for top in ("cnn_papers", "configs", "launch")
    for path in (ROOT / top).rglob("*.py")
)
MODELS = [file for file in FILES if file.startswith("cnn_papers/models/") and file.count("/") == 2]
MODELS.remove("cnn_papers/models/__init__.py")
CONFIGS = [file for file in FILES if file.startswith("configs/")]
CONFIGS = [file for file in CONFIGS if not file.endswith(("__init__.py", "/common.py"))]
PAPERS = [file for file in CONFIGS if "/claims/" not in file]

# The map of the house: a file imports its own room, and rooms of earlier lines.
ORDER = [
    "ground",
    "models",
    "parallel",
    "counting",
    "data",
    "training",
    "evaluation",
    "detection",
    "tasks",
    "runs",
    "weights benchmarks claims",
    "reporting sweeps",
    "pages",
    "commands",
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms.split()}
FLAT = {  # the files of cnn_papers that are in no folder, by room
    "ground": "boxes errors facts files opstrings terminal",
    "counting": "branches counting zoo",
    "pages": "evaluate train",
    "commands": "benchmark describe doors export interface main predict prepare report",
}
ROOMS = {f"cnn_papers.{name}": room for room, names in FLAT.items() for name in names.split()}
OUTSIDE = {  # packages that only these may import; a folder stands for its files
    "tensorflow": ("cnn_papers/data/download.py", "cnn_papers/benchmarks/other_pipelines.py"),
    "tensorflow_datasets": ("cnn_papers/data/",),
    "grain": ("cnn_papers/data/",),
    "ml_collections": ("cnn_papers/doors.py", "cnn_papers/runs/", "configs/common.py", "launch/"),
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
            names = [name for name in node.args if isinstance(name, ast.Constant)]
            found += [Import(str(name.value), node.lineno) for name in names]
    return found


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def room_of(module: str) -> str:
    """The room of a module of ours; "" for `cnn_papers` itself and for modules of others."""
    top, *inside = module.split(".")
    if top == "launch":
        return "commands"
    return ROOMS.get(module, inside[0]) if top == "cnn_papers" and inside else ""


def functions(file: str) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(parsed(file)) if isinstance(node, ast.FunctionDef)]


def test_the_rules_see_the_files():
    """So that a moved folder cannot make everything below hold of nothing."""
    assert {"cnn_papers/main.py", "cnn_papers/data/pipeline.py"} <= set(FILES)
    assert "cnn_papers/models/googlenet.py" in MODELS and "configs/googlenet.py" in PAPERS
    assert "cnn_papers/models/shared/layers.py" not in MODELS
    assert "configs/claims/googlenet.py" in set(CONFIGS) - set(PAPERS)
    seen = {file: {found.module for found in imports(file)} for file in FILES}
    assert "cnn_papers.models.shared.layers" in seen["cnn_papers/models/googlenet.py"]
    assert "grain" in seen["cnn_papers/data/prefetch.py"]  # within a function
    assert "cnn_papers.data.digits" in seen["cnn_papers/data/tfds.py"]  # as a string
    assert {room_of(module_of(file)) for file in FILES} == {*LEVEL, ""}


def test_no_import_runs_upward():
    upward = [
        f"{file}:{line} is of {room} and imports {module}"
        for file in FILES
        if (room := room_of(module_of(file)))
        for module, line in imports(file)
        if (other := room_of(module)) and other != room and LEVEL[other] >= LEVEL[room]
    ]
    assert upward == []


def test_a_paper_needs_no_other_paper_and_a_recipe_no_code():
    shared = ("cnn_papers.facts", "cnn_papers.models.shared")
    allowed = dict.fromkeys(MODELS, shared) | dict.fromkeys(
        CONFIGS, ("cnn_papers.facts", "configs.common", "configs.claims.common")
    )
    others = [
        f"{file}:{line} imports {module}"
        for file, may in allowed.items()
        for module, line in imports(file)
        if module.startswith(("cnn_papers", "configs")) and not module.startswith(may)
    ]
    assert others == []


def test_some_packages_stay_behind_their_doors():
    places = OUTSIDE | {
        "absl.flags": ("launch/", *(f"cnn_papers/{n}.py" for n in FLAT["commands"].split()))
    }
    strays = []
    for file in FILES:
        for module, line in imports(file):
            uses_flags = module.startswith("absl") and "flags" in ast.unparse(parsed(file))
            package = "absl.flags" if uses_flags else module.split(".")[0]
            if package in places and not file.startswith(places[package]):
                strays.append(f"{file}:{line} imports {package}")
    assert strays == []


def test_a_config_goes_no_deeper_than_a_run():
    """Below it, functions take values: settings read themselves off a config, in `from_config`."""
    takers = [
        f"{file}:{function.lineno}: {function.name}"
        for file in FILES
        if LEVEL.get(room_of(module_of(file)), len(ORDER)) < LEVEL["runs"]
        for function in functions(file)
        if function.name != "from_config"
        and "config"
        in [argument.arg for argument in ast.walk(function.args) if isinstance(argument, ast.arg)]
    ]
    assert takers == []


def test_a_file_says_what_it_is_for_and_documents_what_others_use():
    """Public functions and classes of a module, not their methods or what a function defines."""
    silent = [file for file in FILES if not (ast.get_docstring(parsed(file)) or "").strip()]
    silent += [
        f"{file}:{node.lineno}: {node.name}"
        for file in FILES
        for node in parsed(file).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def test_what_must_not_be_there_is_not():
    bad = [
        file for file in FILES if pathlib.Path(file).stem in ("utils", "util", "helpers", "misc")
    ]
    for file in FILES:
        text = (ROOT / file).read_text()
        words = ("TODO", "FIXME", "XXX", "NotImplementedError", "../shared")
        bad += [f"{file}: {word}" for word in words if word in text]
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.keyword) and node.arg == "feature_group_count":
                bad.append(
                    f"{file}:{node.value.lineno}: grouped convolutions are replicated over a mesh"
                )
            if isinstance(node, ast.ExceptHandler):
                swallows = all(isinstance(part, ast.Pass) for part in node.body)
                bad += [f"{file}:{node.lineno}: an error swallowed"] * (
                    swallows or node.type is None
                )
            if isinstance(node, ast.Global):
                bad.append(f"{file}:{node.lineno}: module-level state")
    assert bad == []


def test_functions_are_short():
    long = {
        f"{file}:{function.lineno}: {function.name}": length
        for file in FILES
        for function in functions(file)
        if (length := (function.end_lineno or 0) - function.lineno + 1) > 60
    }
    assert long == {}


def test_a_paper_says_where_it_deviates_and_has_facts_for_its_variants():
    for file in MODELS:
        assert "Deviations:" in (ast.get_docstring(parsed(file)) or ""), file
        stores = [node for node in ast.walk(parsed(file)) if isinstance(node, ast.Name)]
        names = {node.id for node in stores if isinstance(node.ctx, ast.Store)}
        names |= {
            node.name
            for node in parsed(file).body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
        }
        assert {"VARIANTS", "FACTS", "Model"} <= names, file


def test_a_config_names_a_network_that_is_there():
    assert pathlib.Path(configs.__path__[0]) == ROOT / "configs"
    for file in PAPERS:
        spec = importlib.util.find_spec(f"configs.{pathlib.Path(file).stem}")
        assert spec is not None and spec.origin == str(ROOT / file)
        calls = [node for node in ast.walk(parsed(file)) if isinstance(node, ast.Call)]
        bases = [call.args[0] for call in calls if ast.unparse(call.func) == "common.base"]
        used = {base.value for base in bases if isinstance(base, ast.Constant)}
        assert used and {f"cnn_papers/models/{name}.py" for name in used} <= set(MODELS), file
