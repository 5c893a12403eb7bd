"""Who may import whom: the layers of the house, read from the syntax trees.

core <- kernels, loop <- wings (tomography, nn, overlay) <- leaves (tomography.plotting, tomography.benchmarks,
nn.plotting, pxd, runs, report, cli).
"""

from __future__ import annotations

import ast

import pytest

from house import Import, imports, inside, modules, tree

WINGS = ("diffdet.tomography", "diffdet.nn", "diffdet.overlay")
# Longest prefix decides. What stands on the right may be imported, besides the module's own package.
MAY_IMPORT = {
    "diffdet._version": (),
    "diffdet.core": (),
    "diffdet.kernels": ("diffdet.core",),
    "diffdet.loop": ("diffdet.core", "diffdet._version"),
    "diffdet.tomography": ("diffdet.core", "diffdet.kernels", "diffdet.loop", "diffdet._version"),
    "diffdet.nn": ("diffdet.core", "diffdet.kernels", "diffdet.loop", "diffdet._version"),
    "diffdet.overlay": ("diffdet.core", "diffdet.kernels", "diffdet.loop", "diffdet._version"),
    "diffdet.pxd": ("diffdet.core", "diffdet.kernels", "diffdet.overlay", "diffdet._version"),
    "diffdet.runs": ("diffdet.core", "diffdet.kernels", "diffdet.loop", *WINGS, "diffdet._version"),
    "diffdet.report": ("diffdet.core", "diffdet.kernels", *WINGS, "diffdet._version"),
    "diffdet.cli": ("diffdet.core", "diffdet.runs", "diffdet.report", *WINGS, "diffdet._version"),
}
# Leaves that others reach for inside a function only: a picture when one is asked for, a report when a run ends.
LATE = {
    "diffdet.tomography": ("diffdet.tomography.plotting",),
    "diffdet.nn": ("diffdet.nn.plotting",),
    "diffdet.runs": ("diffdet.report",),
}
LEAVES = ("diffdet.tomography.plotting", "diffdet.tomography.benchmarks")

# The line inside tomography: a package imports packages of lower rank and itself.
TOMOGRAPHY_RANK = {
    "core": 0,
    "utils": 0,
    "muon": 1,
    "volume": 2,
    "inference": 3,
    "io": 4,
    "imaging": 5,
    "optimisation.events": 4,
    "optimisation.fit_params": 4,
    "optimisation.parameters": 4,
    "optimisation.loss": 5,
    "optimisation.data": 5,
    "optimisation.rebuild": 5,
    "optimisation.step": 6,
    "optimisation.callbacks": 6,
    "optimisation.wrapper": 7,
    "optimisation.checking": 8,
    "plotting": 8,
    "benchmarks": 9,
}

HEAVY = {
    *("matplotlib", "seaborn", "plotly", "mplhep", "PIL"),
    *("h5py", "pandas", "pyarrow", "uproot", "awkward", "hist", "boost_histogram", "yaml", "jinja2"),
    *("scipy", "sklearn", "numba", "trimesh", "optuna", "cmaes", "onnx", "onnxruntime", "onnxscript", "tensorboard"),
    *("pydantic", "rich", "click", "beartype"),
}


def package_of(module: str) -> str:
    """The row of `MAY_IMPORT` that a module stands in."""
    rows = [row for row in MAY_IMPORT if inside(module, row)]
    assert rows or module == "diffdet", f"{module} is in no layer: add it to `MAY_IMPORT`"
    return max(rows, key=len, default="diffdet")


def tomography_part(module: str) -> str | None:
    """The package inside tomography that a module belongs to; None for a package that only holds others."""
    rest = module.removeprefix("diffdet.tomography").lstrip(".")
    parts = [part for part in TOMOGRAPHY_RANK if inside(rest, part)]
    assert parts or modules()[module].name == "__init__.py", f"{module} has no place in `TOMOGRAPHY_RANK`"
    return max(parts, key=len, default=None)


def ours() -> list[Import]:
    """Every import of one of our modules by another."""
    return [found for module in modules() for found in imports(module) if inside(found.target, "diffdet")]


def test_layers():
    wrong = []
    for found in ours():
        own = package_of(found.importer)
        allowed = (own, *MAY_IMPORT.get(own, ("diffdet._version", *WINGS)))
        late = () if found.top and not found.typing_only else LATE.get(own, ())
        if found.target == "diffdet" or not any(inside(found.target, package) for package in (*allowed, *late)):
            wrong.append(str(found))
    assert not wrong, "\n".join(wrong)


def test_the_line_inside_tomography():
    wrong = []
    for found in ours():
        if not (inside(found.importer, "diffdet.tomography") and inside(found.target, "diffdet.tomography")):
            continue
        own, other = tomography_part(found.importer), tomography_part(found.target)
        late_picture = other == "plotting" and not found.top
        if own is None or own == other or found.typing_only or late_picture:
            continue
        if other is None or TOMOGRAPHY_RANK[other] >= TOMOGRAPHY_RANK[own]:
            wrong.append(str(found))
    assert not wrong, "\n".join(wrong)


def test_nobody_imports_the_leaves_of_tomography_at_the_top():
    wrong = [
        str(found)
        for found in ours()
        for leaf in LEAVES
        if inside(found.target, leaf)
        and not inside(found.importer, "diffdet.tomography.benchmarks")
        and not inside(found.importer, leaf)
        and not any(inside(found.importer, package) for package in ("diffdet.runs", "diffdet.report"))
        and found.top
        and not found.typing_only
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("layer", ["core", "kernels", "loop", "tomography", "nn", "overlay", "pxd"])
def test_heavy_libraries_are_imported_inside_functions(layer):
    wrong = [
        str(found)
        for module in modules()
        if inside(module, f"diffdet.{layer}") and not inside(module, "diffdet.tomography.plotting")
        for found in imports(module)
        if found.target.partition(".")[0] in HEAVY and found.top and not found.typing_only
    ]
    assert not wrong, "\n".join(wrong)


def test_core_and_kernels_need_torch_only():
    allowed = {"torch", "jaxtyping", "diffdet"}
    import sys

    wrong = [
        str(found)
        for module in modules()
        if inside(module, "diffdet.core") or inside(module, "diffdet.kernels")
        for found in imports(module)
        if (root := found.target.partition(".")[0]) not in allowed and root not in sys.stdlib_module_names
    ]
    assert not wrong, "\n".join(wrong)


def test_kernels_are_functions_of_tensors():
    wrong = []
    for module in modules():
        if not inside(module, "diffdet.kernels"):
            continue
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Attribute) and node.attr == "Module":
                wrong.append(f"{module}:{node.lineno} uses nn.Module")
            if isinstance(node, ast.Name) and node.id in ("open", "print"):
                wrong.append(f"{module}:{node.lineno} calls {node.id}")
            if isinstance(node, ast.Global):
                wrong.append(f"{module}:{node.lineno} keeps global state")
    assert not wrong, "\n".join(wrong)


def test_the_loop_knows_no_word_of_a_domain():
    words = {"muon", "muons", "volume", "panel", "detector", "voxel", "pixel", "scatter"}
    wrong = []
    for module in modules():
        if inside(module, "diffdet.loop"):
            for node in ast.walk(tree(module)):
                name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "arg", None)
                if isinstance(name, str) and words & set(name.lower().split("_")):
                    wrong.append(f"{module}:{getattr(node, 'lineno', '?')} says {name!r}")
    assert not wrong, "\n".join(wrong)
