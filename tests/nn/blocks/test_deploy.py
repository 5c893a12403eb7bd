"""Blocks move, compile and can be exported: other precision, `torch.compile`, `torch.export`, ONNX, any batch size."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from diffdet.core.errors import ShapeError
from diffdet.nn.models.blocks.body import FullyConnected, IdentBody, MultiBlock
from diffdet.nn.models.blocks.conv_blocks import (
    AdaptiveAvgMaxConcatPool1d,
    Conv1DBlock,
    Res1DBlock,
    ResNeXt1DBlock,
    SEBlock1d,
)
from diffdet.nn.models.blocks.tail import ClassRegMulti, IdentTail
from diffdet.nn.models.layers.activations import ACTIVATIONS, lookup_act
from diffdet.nn.models.layers.batchnorms import LCBatchNorm1d, RunningBatchNorm1d
from diffdet.nn.models.layers.self_attention import OffsetSelfAttention, SelfAttention

MAP = {name: [k] for k, name in enumerate("abcdef")}
SMALL = partial(FullyConnected, depth=2, width=5, bn=True)

BODIES = {
    "plain": lambda: FullyConnected(6, MAP, 3, 8, act="swish", bn=True, do=0.1, growth_rate=-0.2),
    "residual": lambda: FullyConnected(6, MAP, 4, 8, act="mish", res=True, bn=True),
    "dense": lambda: FullyConnected(6, MAP, 3, 8, act="selu", dense=True, do=0.1),
    "multi": lambda: MultiBlock(
        6,
        MAP,
        [SMALL, partial(MultiBlock, blocks=[SMALL], feats_per_block=[["c", "d"]], bottleneck_sz=1)],
        [["a", "b"], ["c", "d", "e"]],
        bottleneck_sz=2,
        bottleneck_act="tanh",
    ),
    "identity": lambda: IdentBody(6, MAP),
    "classes": lambda: ClassRegMulti(6, 3, "classification"),
    "exclusive": lambda: ClassRegMulti(6, 3, "multiclass"),
    "values": lambda: ClassRegMulti(6, 2, "regression", y_mean=[1.0, 2.0], y_std=0.5),
    "range": lambda: ClassRegMulti(6, 2, "regression", y_range=[[0, 1], [10, 30]]),
    "same": lambda: IdentTail(6, 6, "regression"),
    "running": lambda: nn.Sequential(nn.Linear(6, 4), RunningBatchNorm1d(4)),
}
MATRICES = {
    "conv": lambda: Conv1DBlock(3, 4, 3, stride=2, act="prelu", bn=True),
    "even": lambda: Conv1DBlock(3, 4, 4, act="relu", bn=True),
    "res": lambda: Res1DBlock(3, 4, 3, stride=2, act="swish", bn=True),
    "resnext": lambda: ResNeXt1DBlock(3, 2, 3, 4, 3, act="gelu", bn=True),
    "squeeze": lambda: SEBlock1d(3, 2),
    "pool": lambda: AdaptiveAvgMaxConcatPool1d(1),
}
OBJECTS = {
    "attention": lambda: SelfAttention(5, 4, act="swish", bn=True),
    "offset": lambda: OffsetSelfAttention(5, 4, act="relu"),
    "last axis": lambda: LCBatchNorm1d(nn.BatchNorm1d(5)),
}
SHAPES = {**dict.fromkeys(BODIES, (6,)), **dict.fromkeys(MATRICES, (3, 7)), **dict.fromkeys(OBJECTS, (4, 5))}
BLOCKS = {**BODIES, **MATRICES, **OBJECTS}

# Several blocks in a net: capturing and exporting one takes seconds, whatever its size.
NETS = {
    "plain": lambda: nn.Sequential(FullyConnected(6, MAP, 2, 8, act="swish", bn=True, do=0.1), IdentBody(8, {})),
    "residual": lambda: nn.Sequential(BODIES["residual"](), ClassRegMulti(8, 3, "multiclass")),
    "dense": lambda: nn.Sequential(BODIES["dense"](), ClassRegMulti(8, 2, "regression", y_range=[[0, 1], [10, 30]])),
    "multi": lambda: nn.Sequential(BODIES["multi"](), ClassRegMulti(10, 2, "regression", y_mean=[1, 2], y_std=0.5)),
    "running": lambda: nn.Sequential(BODIES["running"](), ClassRegMulti(4, 2, "classification")),
    "matrix": lambda: nn.Sequential(
        Conv1DBlock(3, 4, 3, stride=2, act="prelu", bn=True),
        Conv1DBlock(4, 4, 4, act="relu", bn=True),
        Res1DBlock(4, 6, 3, act="swish", bn=True),
        ResNeXt1DBlock(6, 2, 3, 6, 3, act="gelu", bn=True),
        SEBlock1d(6, 2),
        AdaptiveAvgMaxConcatPool1d(1),
    ),
    "objects": lambda: nn.Sequential(
        SelfAttention(5, 4, act="swish", bn=True),
        OffsetSelfAttention(5, 4, act="relu"),
        LCBatchNorm1d(nn.BatchNorm1d(5)),
    ),
}
NET_SHAPES = {**dict.fromkeys(NETS, (6,)), "matrix": (3, 7), "objects": (4, 5)}


def taught(block, shape, *, training=False):
    """A block with running statistics that are not those of the start."""
    block.train()
    for _ in range(3):
        block(1.5 * torch.randn(32, *shape) + 0.3)
    return block.train(training)


def made(name):
    return taught(BLOCKS[name](), SHAPES[name])


def inputs(shape, batch, dtype=torch.float32):
    return torch.randn(batch, *shape, dtype=dtype, generator=torch.Generator().manual_seed(batch))


@pytest.mark.parametrize("name", BLOCKS)
def test_both_precisions(name):
    single = made(name)
    double = copy.deepcopy(single).double()
    assert all(t.dtype is torch.float64 for t in (*double.parameters(), *double.buffers()) if t.is_floating_point())
    x = inputs(SHAPES[name], 6, torch.float64)
    found = double(x)
    assert found.dtype is torch.float64
    torch.testing.assert_close(single(x.float()), found.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BLOCKS)
def test_every_tensor_moves(name):
    block = made(name).to("meta")
    assert all(t.is_meta for t in (*block.parameters(), *block.buffers()))
    assert block(torch.empty(4, *SHAPES[name], device="meta")).is_meta


@pytest.mark.parametrize("name", BLOCKS)
def test_state_can_be_saved_and_loaded(name, tmp_path):
    block = made(name)
    torch.save(block.state_dict(), tmp_path / "state.pt")
    again = BLOCKS[name]().eval()
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    x = inputs(SHAPES[name], 4)
    assert torch.equal(again(x), block(x))


@pytest.mark.parametrize("name", [name for name in BLOCKS if name not in ("identity", "same", "squeeze", "pool")])
def test_inputs_of_another_width_are_refused(name):
    axis = {"conv": 1, "even": 1, "res": 1, "resnext": 1}.get(name, -1)
    x = inputs(SHAPES[name], 4)
    wrong = x.narrow(axis, 0, x.shape[axis] - 1)
    with pytest.raises((ShapeError, RuntimeError)) as raised:
        made(name)(wrong)
    if name not in ("running", "last axis"):  # which are, or hold, layers of torch
        assert isinstance(raised.value, ShapeError)
        assert str(raised.value).startswith("`x` must have shape (")


@pytest.mark.parametrize("name", BLOCKS)
def test_trains_in_mixed_precision(name):
    plain = BLOCKS[name]()
    mixed = copy.deepcopy(plain)
    x = inputs(SHAPES[name], 64)
    torch.manual_seed(0)  # of the dropout
    expected = plain(x)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        found = mixed(x)
    torch.testing.assert_close(found.to(expected.dtype), expected, rtol=0.05, atol=0.1)
    if list(mixed.parameters()):
        found.sum().backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.dtype is p.dtype for p in mixed.parameters())
    for key, value in mixed.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[key], rtol=0.05, atol=0.02)


@pytest.mark.usefixtures("compilable")
@pytest.mark.parametrize("name", NETS)
def test_compiles_as_one_graph(name):
    shape = NET_SHAPES[name]
    net = taught(NETS[name](), shape, training=name not in ("plain", "dense"))  # which drop out
    twin = copy.deepcopy(net)
    x = inputs(shape, 4)
    torch.testing.assert_close(torch.compile(net, fullgraph=True, backend="aot_eager")(x), twin(x))
    torch.testing.assert_close(net.state_dict(), twin.state_dict())


@pytest.mark.usefixtures("compilable")
@pytest.mark.parametrize("name", NETS)
def test_exports_with_any_batch_size(name):
    shape = NET_SHAPES[name]
    net = taught(NETS[name](), shape)
    dynamic = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(net, (inputs(shape, 3),), dynamic_shapes=dynamic).module()
    for size in (1, 7, 64):
        torch.testing.assert_close(program(inputs(shape, size)), net(inputs(shape, size)))


def run_onnx(net, arguments, names, tmp_path):
    """A function that runs a net in onnxruntime."""
    reason = "ONNX is an extra: pip install 'diffdet[onnx]'"
    pytest.importorskip("onnx", reason=reason)
    pytest.importorskip("onnxscript", reason=reason)
    runtime = pytest.importorskip("onnxruntime", reason=reason)
    file, batch = tmp_path / "net.onnx", torch.export.Dim("batch")
    dynamic = tuple({0: batch} for _ in names)
    torch.onnx.export(net, arguments, file, input_names=names, dynamo=True, dynamic_shapes=dynamic, verbose=False)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda *given: session.run(None, {n: np.asarray(x) for n, x in zip(names, given, strict=True)})[0]


@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
@pytest.mark.usefixtures("compilable")
@pytest.mark.parametrize("name", NETS)
def test_onnx_gives_the_same_numbers(name, tmp_path):
    shape = NET_SHAPES[name]
    net = taught(NETS[name](), shape)
    run = run_onnx(net, (inputs(shape, 3),), ["x"], tmp_path)
    for size in (1, 7, 64):
        x = inputs(shape, size)
        np.testing.assert_allclose(run(x), net(x).detach().numpy(), rtol=1e-5, atol=1e-5)


class BothAttentions(nn.Module):
    """Two kinds of attention with one mask."""

    def __init__(self):
        super().__init__()
        self.first = SelfAttention(5, 4, act="swish", bn=True)
        self.second = OffsetSelfAttention(5, 4, act="swish")

    def forward(self, x, mask):
        return self.second(self.first(x, mask), mask)


@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
@pytest.mark.usefixtures("compilable")
def test_onnx_takes_masks(tmp_path):
    net = BothAttentions().eval()

    def masks(size):
        return torch.rand(size, 4, generator=torch.Generator().manual_seed(size)) > 0.4

    run = run_onnx(net, (inputs((4, 5), 3), masks(3)), ["x", "mask"], tmp_path)
    for size in (1, 7, 64):
        x, mask = inputs((4, 5), size), masks(size)
        np.testing.assert_allclose(run(x, mask), net(x, mask).detach().numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("compilable")
def test_activations_compile():
    net = nn.Sequential(*(lookup_act(act) for act in ACTIVATIONS))
    x = torch.randn(3, 4)
    torch.testing.assert_close(torch.compile(net, fullgraph=True, backend="aot_eager")(x), net(x))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", BLOCKS)
def test_on_a_cuda_device(name):
    block = made(name).double()
    x = inputs(SHAPES[name], 16, torch.float64)
    expected = block(x)
    torch.testing.assert_close(block.cuda()(x.cuda()).cpu(), expected)
