"""Weights from files: strict, as tensors only, in the order that they were trained with."""

from __future__ import annotations

import json
import os
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from diffdet.core.errors import CheckpointError, FileDamagedError, InputError, StorageError
from diffdet.overlay.checkpoints import CHECKSUMS, find_checkpoint, payload_name, verified_payload
from diffdet.overlay.network_generators import IeaGanGenerator, ResNetGenerator
from diffdet.overlay.sensors import PXD
from diffdet.overlay.weights import WeightFile, class_order_of, load_weights, read_weights
from overlay_scenes import NETWORKS, network


def as_file(state, path="weights.pt"):
    return WeightFile(path, state, {}, "")


@pytest.fixture(scope="module")
def resnet_state():
    return network("resnet").state_dict()


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_made_of_the_published_keys_load_and_each_missing_or_misshaped_key_is_named(name, shared_dir):
    published = json.loads((shared_dir / "spec" / "pxd-state-dicts.json").read_text())["models"][name]
    whole = set(published["int64_keys"])
    state = {
        key: torch.ones(shape, dtype=torch.int64 if key in whole else torch.float32)
        for key, shape in published["state_dict"].items()
    }
    model = NETWORKS[name]()
    load_weights(model, as_file(state), name=name)
    assert all(bool((tensor == 1).all()) for tensor in model.state_dict().values())
    expected = model.state_dict()
    model.state_dict = lambda: expected  # asked for at every call below: make that cheap
    for key, tensor in state.items():
        with pytest.raises(CheckpointError, match=rf"1 missing: {key}(;|$)"):
            load_weights(model, as_file({k: v for k, v in state.items() if k != key}), name=name)
        with pytest.raises(CheckpointError, match=rf"1 misshaped: {key} is .*expected"):
            load_weights(model, as_file({**state, key: torch.ones(*tensor.shape, 2)}), name=name)


def test_faults_are_all_listed_and_nothing_is_loaded(resnet_state):
    model = network("resnet", seed=2)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state = dict(resnet_state)
    del state["fc.bias"], state["norm.weight"]
    state |= {"extra": torch.ones(1), "conv.weight": torch.ones(2), "conv.bias": torch.ones(1, dtype=torch.int64)}
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, as_file(state), name="resnet")
    text = str(caught.value)
    assert "2 missing: fc.bias, norm.weight" in text
    assert "1 unexpected: extra" in text
    assert "1 misshaped: conv.weight is (2,), expected (1, 16, 3, 3)" in text
    assert "1 of another kind of number: conv.bias is torch.int64, expected torch.float32" in text
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_a_wrappers_prefix_is_recognised(resnet_state):
    with pytest.raises(CheckpointError, match=r"begin with 'module\.'"):
        load_weights(network("resnet"), as_file({f"module.{k}": v for k, v in resnet_state.items()}), name="resnet")


def test_numbers_that_are_not_finite_and_negative_variances_are_refused(resnet_state):
    with pytest.raises(CheckpointError, match=r"not finite: fc\.bias"):
        load_weights(
            network("resnet"), as_file({**resnet_state, "fc.bias": resnet_state["fc.bias"] / 0}), name="resnet"
        )
    with pytest.raises(CheckpointError, match=r"negative variances: norm\.running_var"):
        load_weights(network("resnet"), as_file({**resnet_state, "norm.running_var": -torch.ones(16)}), name="resnet")


def test_old_names_of_ieagan_are_read():
    model = network("ieagan")
    state = {key.replace("RR_G.", "transG."): tensor for key, tensor in model.state_dict().items()}
    other = network("ieagan", seed=3)
    load_weights(other, as_file(state), name="ieagan")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_files_of_torch_and_safetensors_come_back(resnet_state, tmp_path, legacy):
    torch.save(resnet_state, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    save_file(resnet_state, tmp_path / "w.safetensors", metadata={"trained_on": "a simulation"})
    first, second = read_weights(tmp_path / "w.pt"), read_weights(tmp_path / "w.safetensors")
    for found in (first, second):
        assert all(torch.equal(found.state[key], tensor) for key, tensor in resnet_state.items())
        assert len(found.sha256) == 64
    assert second.metadata["trained_on"] == "a simulation"
    described = ResNetGenerator.from_checkpoint(tmp_path / "w.safetensors").describe()
    assert described["trained_on"] == "a simulation"
    assert described["weights_sha256"] == second.sha256


class Gadget:
    """Executes a command where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("forced", [False, True], ids=["", "forced by the environment"])
def test_malicious_files_are_refused_without_executing_anything(tmp_path, legacy, forced, monkeypatch):
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save(
        {"fc.weight": Gadget(tmp_path / "executed")}, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy
    )
    with pytest.raises(CheckpointError, match="nothing of it was executed"):
        read_weights(tmp_path / "w.pt")
    assert not (tmp_path / "executed").exists()


def test_foreign_and_damaged_files_are_refused(tmp_path, resnet_state):
    path = tmp_path / "w.pt"
    for content in (b"", b"x", b"hello world, no weights here", bytes(range(256)) * 40):
        path.write_bytes(content)
        with pytest.raises((FileDamagedError, CheckpointError), match=str(path)):
            read_weights(path)
    torch.save(resnet_state, path)
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(FileDamagedError, match=str(path)):
            read_weights(path)
    save_file(resnet_state, tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    path.write_bytes(whole[:-50])
    with pytest.raises(FileDamagedError, match="safetensors"):
        read_weights(path)


def test_what_is_no_bare_state_dict_says_so(tmp_path, resnet_state):
    path = tmp_path / "w.pt"
    torch.save({"state_dict": {"a": torch.ones(1)}, "epoch": 3}, path)
    with pytest.raises(CheckpointError, match=r"wrapper around 'state_dict'"):
        read_weights(path)
    torch.save({"a": torch.ones(1), "epoch": 3}, path)
    with pytest.raises(CheckpointError, match=r"'epoch' \(int\)"):
        read_weights(path)
    torch.save([torch.ones(1)], path)
    with pytest.raises(CheckpointError, match="list"):
        read_weights(path)


def test_archives_that_unpack_to_more_than_they_are_are_refused(tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)
    with pytest.raises(CheckpointError, match="unpacks to"):
        read_weights(path)


def test_files_that_are_not_there_are_storage_errors(tmp_path):
    with pytest.raises(StorageError, match="cannot read"):
        read_weights(tmp_path / "none.pt")
    with pytest.raises(StorageError, match="folder or device"):
        read_weights(tmp_path)


# --- order of labels ---


def test_permutation_of_lexicographic_labels(shared_dir):
    orders = json.loads((shared_dir / "spec" / "pxd-state-dicts.json").read_text())["class_orders"]
    label = class_order_of("lexicographic")
    # the table lists, for each label, the index of its sensor
    assert [int((label == k).nonzero()) for k in range(40)] == orders["lexicographic_to_numeric_index"]
    assert torch.equal(class_order_of(orders["lexicographic"]), label)
    assert torch.equal(class_order_of("numeric"), torch.arange(40))
    assert label[PXD.by_name("2.2.1").index] == 24
    assert label[PXD.by_name("2.10.1").index] == 18


def test_relabelled_weights_paint_the_same_images_under_their_order():
    # weights whose labels count in another order: the rows of the embedding stand in that order
    numeric, lexicographic = network("ieagan"), network("ieagan")
    label = class_order_of("lexicographic")
    with torch.no_grad():
        lexicographic.shared.weight[label] = numeric.shared.weight.clone()
    first = IeaGanGenerator(numeric)
    second = IeaGanGenerator(lexicographic, class_order="lexicographic")
    z = torch.randn(40, 128, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(first.start(z), second.start(z))
    assert not torch.allclose(first.start(z), IeaGanGenerator(lexicographic).start(z))


def test_orders_that_are_none_are_refused():
    with pytest.raises(InputError, match=r"`class_order`.*'numeric'"):
        class_order_of("alphabetic")
    with pytest.raises(InputError, match=r"unknown: 3\.1\.1, absent: 2\.12\.2"):
        class_order_of([*PXD.names[:-1], "3.1.1"])
    with pytest.raises(InputError, match="39 names"):
        class_order_of(PXD.names[:-1])


# --- where weights are ---


def test_a_folder_of_payloads_is_checked_against_its_list(tmp_path, monkeypatch, resnet_state):
    path = tmp_path / f"{payload_name('resnet')}.pt"
    torch.save(resnet_state, path)
    with pytest.raises(StorageError, match="sha256sum"):
        verified_payload("resnet", tmp_path)
    digest = read_weights(path).sha256
    (tmp_path / CHECKSUMS).write_text(f"{digest}  {path.name}\n")
    assert verified_payload("resnet", tmp_path) == path
    monkeypatch.setenv("DIFFDET_PXD_PAYLOADS", str(tmp_path))
    assert find_checkpoint("resnet") == path
    with pytest.raises(StorageError, match="has no payload"):
        find_checkpoint("convnet")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(FileDamagedError, match="Fetch it again"):
        find_checkpoint("resnet")
    (tmp_path / CHECKSUMS).write_text("nonsense\n")
    with pytest.raises(StorageError, match="line 1"):
        find_checkpoint("resnet")
    (tmp_path / CHECKSUMS).write_text(f"{digest}  ../PXDBackgroundGenerator_resnet\n")
    with pytest.raises(StorageError, match="has no payload"):
        find_checkpoint("resnet")
    with pytest.raises(StorageError, match="does not exist"):
        find_checkpoint("resnet", folder=tmp_path / "none")


def test_weights_of_the_package_and_their_absence(monkeypatch):
    monkeypatch.delenv("DIFFDET_PXD_PAYLOADS", raising=False)
    assert find_checkpoint("clusters").is_file()
    with pytest.raises(CheckpointError, match="no weights of 'convnet' come with the package"):
        find_checkpoint("convnet")
    with pytest.raises(StorageError, match="`checkpoint`"):
        find_checkpoint("convnet", "/nowhere/w.pt")
