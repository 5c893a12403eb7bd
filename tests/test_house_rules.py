"""Rules that every source file keeps, read from the syntax trees: keyed draws, nothing that executes what it reads."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from house import imports, inside, modules, tree

DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"}
DRAWS_IN_PLACE = {
    "normal_",
    "uniform_",
    "random_",
    "bernoulli_",
    "exponential_",
    "cauchy_",
    "log_normal_",
    "geometric_",
}


def calls() -> Iterator[tuple[str, ast.Call, str]]:
    """Module, call and the dotted name of what is called, for every call in the package."""
    for module in modules():
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Call):
                yield module, node, ast.unparse(node.func)


def is_safe_loader(module: str, loader: str | None) -> bool:
    """Whether a YAML loader builds plain data only: PyYAML's safe one, or a class of the module that extends it."""
    safe = {"yaml.SafeLoader", "yaml.CSafeLoader"}
    extended = {
        node.name
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ClassDef) and {ast.unparse(base) for base in node.bases} <= safe and node.bases
    }
    return loader in safe | extended


def where(module: str, node: ast.expr) -> str:
    return f"{module}:{node.lineno} {ast.unparse(node)[:80]}"


def test_every_draw_names_its_generator():
    wrong = []
    for module, call, name in calls():
        root, _, last = name.rpartition(".")
        draws = (
            (root == "torch" and last in DRAWS)
            or last in DRAWS_IN_PLACE
            or (root == "torch" and last in ("rand_like", "randn_like"))
        )
        if draws and not any(keyword.arg == "generator" for keyword in call.keywords):
            wrong.append(where(module, call))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("banned", ["random", "pickle", "marshal", "shelve", "joblib", "torch.distributions"])
def test_modules_that_are_not_used(banned):
    # stdlib and NumPy randomness is not keyed; the others execute what they read
    wrong = [str(found) for module in modules() for found in imports(module) if inside(found.target, banned)]
    assert not wrong, "\n".join(wrong)


def test_nothing_that_is_read_is_executed():
    wrong = []
    for module, call, name in calls():
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        unsafe = (
            name in ("eval", "exec", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load")
            or (name == "yaml.load" and not is_safe_loader(module, keywords.get("Loader")))
            or (name == "torch.load" and keywords.get("weights_only") != "True")
            or keywords.get("shell") == "True"
            or keywords.get("allow_pickle") == "True"
        )
        if unsafe:
            wrong.append(where(module, call))
    assert not wrong, "\n".join(wrong)


def test_numerics_that_lose_digits_or_types_are_not_used():
    wrong = []
    for module, call, name in calls():
        last = name.rpartition(".")[2]
        if (
            last in ("acos", "arccos")
            or (last == "float" and "." in name)
            or name.startswith(("np.random", "numpy.random"))
        ):
            wrong.append(where(module, call))
    for module in modules():
        if inside(module, "diffdet.kernels"):
            wrong.extend(
                where(module, node)
                for node in ast.walk(tree(module))
                if isinstance(node, ast.Attribute) and node.attr in ("float32", "float16", "bfloat16")
            )
    assert not wrong, "\n".join(wrong)


def test_what_is_public_says_what_it_is():
    wrong = []
    for module in modules():
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Module | ast.ClassDef) and not ast.get_docstring(node):
                name = getattr(node, "name", "")
                if not name.startswith("_"):
                    wrong.append(f"{module}:{getattr(node, 'lineno', 1)} {name}")
    assert not wrong, "\n".join(wrong)
