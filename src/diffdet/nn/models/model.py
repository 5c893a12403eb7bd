"""A network with its optimiser and loss: fit, evaluate, predict, save, export."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from diffdet.core.errors import InputError
from diffdet.nn.models import _export, _predict
from diffdet.nn.models._fit import run_fit
from diffdet.nn.models._model_parts import ModelParts
from diffdet.nn.training.batches import Batch, Inputs, is_fold_source, load_fold, to_rows
from diffdet.nn.training.step import compute_loss

if TYPE_CHECKING:
    from diffdet.loop.callbacks import Callback as LoopCallback
    from diffdet.loop.checkpoint import Checkpoints
    from diffdet.nn.callbacks.pred_handlers import PredHandler

__all__ = ["Model"]


class Model(ModelParts):
    """A network that is trained, evaluated and asked for predictions.

    Args:
        model_builder: What builds network, optimiser and loss; None for an empty model that `load` with a builder, or
            `from_net`, fills.
        seed: Root of initial weights and of the choice of features; the builder's where None.
        device: Where to put the network; torch's default device where None.

    Attributes:
        model_builder: As given.
        net: The network.
        opt: Its optimiser.
        loss: Class of the loss, called without arguments when a fit begins.
        input_mask: Columns of the flat inputs that the network sees; None for all.
        objective: Kind of task, in lower case.
        n_out: Number of outputs.
        fit_params: State of the fit or prediction in progress; None in between.
        last_fit: State of the last fit when it ended: `stop_reason`, `history`, `interrupted_by`.

    A part of the network is ``model[0]`` or ``model["head"]``, and so on.
    """

    # ------------------------------------------------------------------------------------------------------------ train
    def fit(
        self,
        n_epochs: int,
        fy: Any,
        bs: int,
        bulk_move: bool = True,
        train_on_weights: bool = True,
        trn_idxs: Sequence[int] | None = None,
        val_idx: int | None = None,
        cbs: Iterable[LoopCallback] | LoopCallback | None = None,
        cb_savepath: str | Path = Path("train_weights"),
        *,
        seed: int | None = None,
        drop_last: bool = True,
        checkpoint: Checkpoints | str | Path | None = None,
        resume: bool = False,
        progress: bool = False,
        interruptible: bool = False,
        amp: bool | str = False,
    ) -> list[LoopCallback]:
        """Train the network.

        Every epoch takes the folds of ``trn_idxs`` in random order and cuts each, in random order, into batches, then
        validates on the fold ``val_idx``. Everything random is keyed by (seed, epoch, fold): one seed gives one result.
        Each event counts with its weight. Processes that ``torchrun`` started share every batch.

        Args:
            n_epochs: Number of epochs.
            fy: Source of folds (`diffdet.nn.training.batches.FoldSource`), such as a `FoldYielder`.
            bs: Samples to a batch, over all processes.
            bulk_move: Whether to move whole folds to the device, and validate a fold in one batch; else batch by batch.
            train_on_weights: Whether to use the weights of the data, in training and validation.
            trn_idxs: Folds to train on; all but ``val_idx`` where None.
            val_idx: Fold to validate on; None for no validation.
            cbs: Callbacks, called in this order.
            cb_savepath: Where callbacks write to. Created only when one does.
            seed: Root of all random numbers of the fit; where None, drawn from torch's default generator.
            drop_last: Whether to leave out the last batch of a fold where it is smaller than ``bs``.
            checkpoint: Folder, or `Checkpoints`, to save the state to, so that a killed fit can be resumed.
            resume: Go on from the last checkpoint, bit for bit, if there is one. Pass the same arguments as before.
            progress: Show progress on standard error.
            interruptible: Whether SIGINT, SIGTERM and SIGUSR1 finish the batch, save, and end the fit; `last_fit` then
                says so.
            amp: Automatic mixed precision: True for what suits a CUDA device, ``"bfloat16"`` or ``"float16"``.

        Returns:
            The list of callbacks.

        Raises:
            InputError: If an argument or the data cannot be used.
            CheckpointError: If the checkpoint was saved with another network, optimiser or other callbacks.
            NonFiniteError: If the loss was not finite; the state has been saved.
            StorageError: If a file cannot be written.
        """
        return run_fit(
            self,
            n_epochs,
            fy,
            bs,
            bulk_move=bulk_move,
            train_on_weights=train_on_weights,
            trn_idxs=trn_idxs,
            val_idx=val_idx,
            cbs=cbs,
            cb_savepath=cb_savepath,
            seed=seed,
            drop_last=drop_last,
            checkpoint=checkpoint,
            resume=resume,
            progress=progress,
            interruptible=interruptible,
            amp=amp,
        )

    # --------------------------------------------------------------------------------------------------------- evaluate
    def batches(
        self, fy: Any, idxs: Sequence[int], bs: int | None, *, use_weights: bool = True, bulk_move: bool = True
    ) -> Iterator[Batch]:
        """Batches of some folds in their order, as the network takes them.

        Args:
            fy: Source of folds.
            idxs: Numbers of folds.
            bs: Samples to a batch; whole folds where None.
            use_weights: Whether to take the weights of the data.
            bulk_move: Whether to move whole folds to the device; else batch by batch.
        """
        for idx in idxs:
            rows = load_fold(
                fy,
                idx,
                dtype=self.dtype,
                classes=self.n_classes,
                labels=self.labels,
                use_weights=use_weights,
                input_mask=self.input_mask,
            )
            if bulk_move:
                rows = rows.map(lambda t: t.to(self.device))
            yield from rows.batches(bs, fold=idx, device=None if bulk_move else self.device)

    @torch.no_grad()
    def loss_of(self, batches: Iterable[Batch], loss_func: Any = None) -> float:
        """Mean loss of the network as it is, in evaluation mode, weighted by the sizes of the batches.

        Args:
            batches: What to evaluate on, with targets.
            loss_func: The loss; a new one of the model's class where None.
        """
        loss_func = self.loss() if loss_func is None else loss_func
        if isinstance(loss_func, nn.Module):
            loss_func = loss_func.to(self.device)
        training = self.net.training
        self.net.eval()
        total, n = torch.zeros((), dtype=torch.double, device=self.device), 0
        try:
            for batch in batches:
                pred = self.net(batch.x) if batch.mask is None else self.net(batch.x, mask=batch.mask)
                assert batch.y is not None
                total += compute_loss(loss_func, pred, batch.y, batch.w) * len(batch.y)
                n += len(batch.y)
        finally:
            self.net.train(training)
        if not n:
            raise InputError("`inputs` must have at least one sample to evaluate; got none")
        return (total / n).item()

    def evaluate(
        self,
        inputs: Any,
        targets: Any = None,
        weights: Any = None,
        bs: int | None = None,
        *,
        mask: Any = None,
        idxs: Sequence[int] | None = None,
    ) -> float:
        """Mean loss on some data: the mean over samples, whatever the size of batches.

        Args:
            inputs: Array, tensor, table, or (flat, matrix); or a source of folds.
            targets: True values; not for folds, which bring their own.
            weights: Weight of each sample; not for folds.
            bs: Samples to a batch; a size that suits the memory where None.
            mask: Which objects exist, (sample, object); not for folds.
            idxs: Which folds; all where None. For folds only.

        Raises:
            InputError: If a fit is running, or targets are missing.
            ShapeError: If parts do not have the same number of samples.
        """
        if self.fit_params is not None and self.fit_params.state in ("train", "valid"):
            raise InputError("`evaluate` must not be called during a fit; use `val_idx`, or a metric in `cbs`")
        bs = _predict.batch_size(self, bs)
        if is_fold_source(inputs):
            wanted = range(len(inputs)) if idxs is None else list(idxs)
            return self.loss_of(self.batches(inputs, list(wanted), bs, bulk_move=False))
        if targets is None:
            raise InputError("`targets` must be given to evaluate arrays; got None")
        rows = to_rows(
            inputs,
            targets,
            weights,
            mask,
            dtype=self.dtype,
            classes=self.n_classes,
            labels=self.labels,
            input_mask=self.input_mask,
        )
        return self.loss_of(rows.batches(bs, device=self.device))

    def predict(
        self,
        inputs: Any,
        as_np: bool = True,
        pred_name: str = "pred",
        pred_cb: PredHandler | None = None,
        cbs: Iterable[LoopCallback] | LoopCallback | None = None,
        bs: int | None = None,
        *,
        mask: Any = None,
    ) -> Any:
        """Predict some data.

        Args:
            inputs: Array, tensor, table, or (flat, matrix); or a source of folds, into which predictions are written.
            as_np: Whether arrays are returned, for multiclass models of probabilities; else tensors, for multiclass
                models of logarithms of probabilities.
            pred_name: Name under which folds get their predictions.
            pred_cb: Collects the predictions; a new `PredHandler` where None.
            cbs: Further callbacks, called before it.
            bs: Samples to a batch; a size that suits the network where None.
            mask: Which objects exist, (sample, object); folds bring their own.

        Returns:
            Predictions, (sample, n_out); None for folds.

        Raises:
            InputError: If the data cannot be used.
        """
        if is_fold_source(inputs):
            return _predict.predict_folds(self, inputs, pred_name, pred_cb, cbs, bs)
        return _predict.predict_array(self, inputs, as_np, pred_cb, cbs, bs, mask=mask)

    def get_feat_importance(self, fy: Any, **settings: Any) -> Any:
        """Importance of each feature by permutation; see `diffdet.nn.interpretation`.

        Args:
            fy: Source of folds.
            **settings: What the function takes.
        """
        from diffdet.nn.interpretation import get_nn_feat_importance

        return get_nn_feat_importance(self, fy, **settings)

    # ----------------------------------------------------------------------------------------------------------- export
    def example_inputs(self, bs: int = 2, *, mask: bool = False) -> tuple[Inputs, Tensor | None]:
        """Inputs of the right shape, for exports: zeros, and a mask of ones where asked for.

        Args:
            bs: Number of samples.
            mask: Whether to make a mask.

        Raises:
            InputError: If a mask is wanted of a head without objects.
        """
        return _export.example_inputs(self, bs, mask=mask)

    def export_to_onnx(self, name: str | Path, *, mask: bool = False, inputs: Any = None, opset: int = 18) -> Path:
        """Export the network, in evaluation mode, to ONNX with a batch axis of any size.

        Args:
            name: Name of the file; ``.onnx`` is appended where it is missing.
            mask: Whether the exported network takes a mask as its last input.
            inputs: Inputs to trace with, at least two samples; zeros of the right shape where None.
            opset: Version of the operators.

        Returns:
            The file. Its inputs are ``x``, or ``flat`` and ``matrix``, and ``mask``; its output is ``pred``: for
            multiclass models logarithms of probabilities.

        Raises:
            MissingExtraError: If ``onnx`` is not installed.
        """
        return _export.export_to_onnx(self, name, mask=mask, inputs=inputs, opset=opset)

    def export2onnx(self, name: str | Path, bs: int = 1) -> Path:
        """Export to ONNX under the documented name.

        Args:
            name: Name of the file.
            bs: Not needed: the batch axis takes any size. (The original fixed it.)
        """
        if bs < 1:
            raise InputError(f"`bs` must be at least 1; got {bs}")
        return self.export_to_onnx(name)

    def export(self, *, mask: bool = False, inputs: Any = None) -> torch.export.ExportedProgram:
        """The network as a program of `torch.export`, with a batch axis of any size.

        Args:
            mask: Whether it takes a mask.
            inputs: Inputs to trace with, at least two samples; zeros of the right shape where None.
        """
        return _export.export_program(self, mask=mask, inputs=inputs)
