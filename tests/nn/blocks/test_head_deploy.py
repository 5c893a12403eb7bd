"""Heads move, compile and can be exported: other precision, `torch.compile`, `torch.export`, ONNX, with and without
mask, any batch size.
"""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch
from torch import nn

from diffdet.core.errors import InputError, MissingExtraError, NotSupportedError, StorageError
from diffdet.nn.models.deploy import export_program, export_to_onnx, input_names
from nn.some_heads import MATRIX_HEADS, cat_head, events, in_layout, masks, matrix_head, multi_head, multi_input, taught

MASKED = [(name, mask) for name in (*MATRIX_HEADS, "multi", "multi tuple") for mask in (False, True)]
EVERY_HEAD = [*MASKED, ("cat", False)]
QUICK = [("inet bn", True), ("multi tuple", True), ("cat", False)]
LABEL = lambda value: value if isinstance(value, str) else "mask" if value else "all"  # noqa: E731


def made(name):
    """A head of the name, taught."""
    torch.manual_seed(1)
    if name == "cat":
        return cat_head()
    return multi_head() if name.startswith("multi") else taught(matrix_head(name))


def arguments(name, head, batch, mask, dtype=torch.float32):
    """Input, and mask if wanted."""
    if name.startswith(("multi", "cat")):
        together, apart, present = multi_input(batch, dtype, batch)
        x = apart if name == "multi tuple" else together
        x = torch.cat([x[:, :1], x[:, 8:9], x[:, -2:]], 1) if name == "cat" else x
    else:
        x, present = in_layout(head, events(batch, dtype, batch)), masks(max(2, batch), batch)[:batch]
    return (x, present) if mask else (x,)


@pytest.mark.parametrize(("name", "mask"), EVERY_HEAD, ids=LABEL)
def test_both_precisions(name, mask):
    single = made(name)
    double = copy.deepcopy(single).double()
    assert all(t.dtype is torch.float64 for t in (*double.parameters(), *double.buffers()) if t.is_floating_point())
    given = arguments(name, double, 6, mask, torch.float64)
    found = double(*given)
    assert found.dtype is torch.float64
    x, *present = given
    x = tuple(part.float() for part in x) if isinstance(x, tuple) else x.float()
    torch.testing.assert_close(single(x, *present), found.float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "mask"), EVERY_HEAD, ids=LABEL)
def test_every_tensor_moves(name, mask):
    head = made(name).to("meta")
    assert all(t.is_meta for t in (*head.parameters(), *head.buffers()))
    x, *present = arguments(name, head, 3, mask)
    x = tuple(part.to("meta") for part in x) if isinstance(x, tuple) else x.to("meta")
    assert head(x, *(part.to("meta") for part in present)).is_meta


@pytest.mark.parametrize("name", [*MATRIX_HEADS, "multi", "cat"])
def test_state_can_be_saved_and_loaded(name, tmp_path):
    head = made(name)
    torch.save(head.state_dict(), tmp_path / "state.pt")
    torch.manual_seed(2)
    again = {"cat": cat_head, "multi": multi_head}.get(name, lambda: matrix_head(name))()
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    given = arguments(name, head, 4, False)
    assert torch.equal(again(*given), head(*given))


COMPILED = [
    ("inet bn", True),
    ("conv", True),
    ("lbn", True),
    ("aelbn", False),
    ("gnn pairs", True),
    ("gnn grav", False),
]


@pytest.mark.usefixtures("compilable")
@pytest.mark.parametrize(("name", "mask"), [*COMPILED, ("multi tuple", True), ("cat", False)], ids=LABEL)
def test_compiles_as_one_graph_in_training(name, mask):
    head = made(name).train()
    twin = copy.deepcopy(head)
    given = arguments(name, head, 4, mask)
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*given), twin(*given), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head.state_dict(), twin.state_dict(), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of dynamo, about itself
@pytest.mark.usefixtures("compilable")
@pytest.mark.parametrize(("name", "mask"), [("gru", True), ("lstm", False)], ids=LABEL)
def test_recurrent_heads_compile(name, mask):
    # torch's dynamo leaves recurrent layers out of the graph unless told otherwise
    head = made(name)
    given = arguments(name, head, 4, mask)
    torch.testing.assert_close(torch.compile(head, backend="aot_eager")(*given), head(*given))


@pytest.mark.slow
@pytest.mark.usefixtures("compilable")
@pytest.mark.parametrize(("name", "mask"), EVERY_HEAD, ids=LABEL)
def test_exports_with_any_batch_size(name, mask):
    head = made(name)
    program = export_program(head, *arguments(name, head, 3, mask)).module()
    for size in (1, 7, 64):
        given = arguments(name, head, size, mask)
        torch.testing.assert_close(program(*given), head(*given), rtol=1e-4, atol=1e-5)


@pytest.fixture
def onnx():
    """Loads files with onnxruntime."""
    for library in ("onnx", "onnxscript"):
        pytest.importorskip(library, reason="ONNX is an extra: pip install 'diffdet[onnx]'")
    runtime = pytest.importorskip("onnxruntime", reason="ONNX is an extra: pip install 'diffdet[onnx]'")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1

    def load(file):
        return runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    return load


def feed(session, given):
    """Run a session on input and mask."""
    x, *present = given
    parts = [*(x if isinstance(x, tuple) else (x,)), *present]
    return session.run(None, {n: p.numpy() for n, p in zip(input_names(*given), parts, strict=True)})[0]


def compare_with_onnx(onnx, name, mask, folder):
    head = made(name)
    example = arguments(name, head, 3, mask)
    session = onnx(export_to_onnx(head, folder / "new" / "net.onnx", *example))
    assert [one.name for one in session.get_inputs()] == input_names(*example)
    assert {one.shape[0] for one in session.get_inputs()} == {"batch"}
    assert [path.name for path in (folder / "new").iterdir()] == ["net.onnx"]
    for size in (1, 7, 64):
        given = arguments(name, head, size, mask)
        wanted = head(*given).detach().numpy()
        np.testing.assert_allclose(feed(session, given), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("compilable")
@pytest.mark.parametrize(("name", "mask"), QUICK, ids=LABEL)
def test_onnx_gives_the_same_numbers(onnx, name, mask, tmp_path):
    compare_with_onnx(onnx, name, mask, tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("compilable")
@pytest.mark.parametrize(("name", "mask"), [one for one in EVERY_HEAD if one not in QUICK], ids=LABEL)
def test_onnx_gives_the_same_numbers_for_every_head(onnx, name, mask, tmp_path):
    compare_with_onnx(onnx, name, mask, tmp_path)


@pytest.mark.usefixtures("compilable")
def test_exporting_leaves_the_network_as_it_was():
    head = nn.Sequential(made("conv"))
    head.train()
    head[0].layers[0].eval()
    before = {name: part.training for name, part in head.named_modules()}
    state = copy.deepcopy(head.state_dict())
    export_program(head, in_layout(head[0], events(1)))  # one event is enough
    assert {name: part.training for name, part in head.named_modules()} == before
    torch.testing.assert_close(head.state_dict(), state)


def test_examples_that_do_not_fit_are_refused():
    head = made("multi")
    _, (flat, matrix), mask = multi_input(4)
    with pytest.raises(InputError, match="same number of events; got 4 in `flat`, 3 in `matrix`, 4 in `mask`"):
        export_program(head, (flat, matrix[:3]), mask)
    with pytest.raises(InputError, match="at least one event"):
        export_program(head, (flat[:0], matrix[:0]))


@pytest.mark.usefixtures("compilable")
def test_networks_that_cannot_be_traced_are_told_so():
    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(NotSupportedError, match="Branches cannot be traced"):
        export_program(Branches(), torch.ones(2, 3))


def test_a_missing_library_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"diffdet\[onnx\]"):
        export_to_onnx(nn.Linear(2, 2), tmp_path / "net.onnx", torch.ones(2, 2))


@pytest.mark.usefixtures("compilable")
def test_a_place_that_cannot_be_written_is_told(onnx, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        export_to_onnx(nn.Linear(2, 2), tmp_path / "file" / "net.onnx", torch.ones(2, 2))
