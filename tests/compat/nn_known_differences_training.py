"""What losses, fits, models and ensembles do otherwise than the package whose names they keep, on purpose."""

from __future__ import annotations

from compat.known_differences import KnownDifference

_LOSSES = "tests/nn/test_losses.py"
_FIT = "tests/nn/test_fit.py"
_CYCLES = "tests/nn/test_cyclic_callbacks.py"
_CALLBACKS = "tests/nn/test_callbacks.py"
_BUILDER = "tests/nn/test_model_builder.py"
_MODEL = "tests/nn/test_model.py"
_ENSEMBLE = "tests/nn/test_ensemble.py"
_EXPORT = "tests/nn/test_export.py"
_RESUME = "tests/nn/test_fit_resume.py"

TRAINING = [
    KnownDifference(
        path="diffdet.nn.losses.WeightedMSE",
        old="fixes the reduction to a mean at construction: during a fit, weights act as mean(w) * mean(error)",
        ours="mean of w * error over the events",
        why="event weights then weigh each event, as they are meant to",
        test=f"{_LOSSES}::test_regression_losses_weigh_each_event",
    ),
    KnownDifference(
        path="diffdet.nn.losses.WeightedMAE",
        old="fixes the reduction to a mean at construction: during a fit, weights act as mean(w) * mean(error)",
        ours="mean of w * error over the events",
        why="event weights then weigh each event, as they are meant to",
        test=f"{_LOSSES}::test_regression_losses_weigh_each_event",
    ),
    KnownDifference(
        path="diffdet.nn.losses.WeightedCCE",
        old="weights act as mean(w) * mean(error), whenever they are given",
        ours="mean of w * error over the events",
        why="event weights then weigh each event, as they are meant to",
        test=f"{_LOSSES}::test_cross_entropy_of_classes_weighs_each_event",
    ),
    KnownDifference(
        path="diffdet.nn.losses.AbsWeightedLoss",
        old="compares predictions (n, 1) with targets (n,) by broadcasting: every event with every other",
        ours="refuses targets of another shape",
        why="the loss of a pair of two events means nothing",
        test=f"{_LOSSES}::test_targets_of_another_shape_are_refused_instead_of_compared_with_every_event",
    ),
    KnownDifference(
        path="diffdet.nn.callbacks.cyclic_callbacks.OneCycle",
        old="makes a whole triangle of each half under interp='linear', so the rate ends at 7.5e-3 instead of 1e-5",
        ours="one ramp up and one ramp down",
        why="the rate then ends where the user says",
        test=f"{_CYCLES}::test_linear_one_cycle_is_a_ramp_up_and_a_ramp_down",
    ),
    KnownDifference(
        path="diffdet.nn.models.model.Model.evaluate",
        old="takes the length of a (flat, matrix) tuple, 2, for the number of events when it averages over batches",
        ours="weighs batches by their numbers of events",
        why="the loss of a data set must not depend on the size of batches",
        test=f"{_FIT}::test_evaluate_is_the_mean_over_events_of_tuples_too",
    ),
    KnownDifference(
        path="diffdet.nn.models.model.Model.predict",
        old="predicts a (flat, matrix) tuple in batches of 2 events, the length of the tuple, unless told otherwise",
        ours="predicts in batches of thousands of events",
        why="a thousand forward passes for 2000 events are slow",
        test=f"{_FIT}::test_evaluate_is_the_mean_over_events_of_tuples_too",
    ),
    KnownDifference(
        path="diffdet.nn.models.model.Model.fit",
        old="shuffles and shortens the caller's list `trn_idxs` in place",
        ours="leaves it alone",
        why="an argument belongs to the caller",
        test=f"{_FIT}::test_the_callers_list_of_folds_is_left_alone",
    ),
    KnownDifference(
        path="diffdet.nn.models.model.Model.fit",
        old="draws from global generators, so a fit cannot be repeated or resumed",
        ours="keys everything random by (seed, epoch, fold); a killed fit goes on bit for bit",
        why="results can then be reproduced",
        test=f"{_RESUME}::test_killed_and_resumed",
    ),
    KnownDifference(
        path="diffdet.nn.models.model.Model.fit",
        old="trains nothing on a fold that is smaller than a batch, and says nothing",
        ours="refuses the batch size and names the fold",
        why="a fit that trains on nothing is a mistake",
        test=f"{_FIT}::test_bad_arguments_are_named",
    ),
    KnownDifference(
        path="diffdet.nn.callbacks.model_callbacks.SWA",
        old="crashes with its own default, `renewal_period=None`",
        ours="keeps one average with it",
        why="the default must work",
        test=f"{_CALLBACKS}::test_the_average_is_the_mean_of_the_weights_with_the_default_period",
    ),
    KnownDifference(
        path="diffdet.nn.callbacks.monitors.SaveBest",
        old="cannot reload the best model after any cyclic schedule with torch 2.6 or later",
        ours="reloads it, after any schedule",
        why="rates are saved as plain numbers",
        test=f"{_CALLBACKS}::test_reloading_the_best_after_a_cyclic_schedule_works",
    ),
    KnownDifference(
        path="diffdet.nn.metrics.RegPull",
        old="takes the lowest signed mean for the best: a bias of -0.9 is better than one of +0.1",
        ours="judges a mean by its size",
        why="a bias is a bias",
        test=f"{_CALLBACKS}::test_a_mean_pull_is_judged_by_its_size",
    ),
    KnownDifference(
        path="diffdet.nn.callbacks.data_callbacks.ParametrisedPrediction",
        old="writes the parameter into the caller's array",
        ours="sets it in a copy of the batch",
        why="predicting must not change data",
        test=f"{_MODEL}::test_a_parameter_is_set_without_touching_the_callers_array",
    ),
    KnownDifference(
        path="diffdet.nn.models.model_builder.ModelBuilder.from_model_builder",
        old="falls back to Adam with a rate of 2e-3 and the default lookups",
        ours="keeps optimiser, loss and lookups unless others are given",
        why="further training should go on as it was",
        test=f"{_BUILDER}::test_from_model_builder_keeps_optimiser_loss_and_lookups",
    ),
    KnownDifference(
        path="diffdet.nn.models.model_builder.ModelBuilder.get_out_size",
        old="calls a method of the tail's class and raises",
        ours="returns the number of outputs",
        why="the builder knows it",
        test=f"{_BUILDER}::test_get_out_size",
    ),
    KnownDifference(
        path="diffdet.nn.models.model_builder.ModelBuilder.sample_features",
        old="seeds NumPy from entropy, changes the caller's `guaranteed_feats` and needs an embedder",
        ours="draws from a seed, copies the list, and needs none",
        why="a choice of features can then be repeated",
        test=f"{_BUILDER}::test_features_are_subsampled_by_seed_without_embedder_and_without_touching_arguments",
    ),
    KnownDifference(
        path="diffdet.nn.models.model_builder.ModelBuilder.load",
        old="unpickles builders, which runs whatever code is in the file",
        ours="reads JSON in which classes are names, looked up in a list",
        why="files of others are then safe to open",
        test=f"{_BUILDER}::test_own_classes_are_handed_in_never_imported",
    ),
    KnownDifference(
        path="diffdet.nn.models.model.Model.load",
        old="loads whole pickles, or with torch 2.6 and an input mask nothing at all",
        ours="reads weights, masks and numbers only, also from the older files; lists every key that does not fit",
        why="files of others are then safe to open, and what is wrong with them is said",
        test=f"{_MODEL}::test_files_never_run_code",
    ),
    KnownDifference(
        path="diffdet.nn.models.model.Model.__repr__",
        old="raises for a model that was loaded with a builder",
        ours="describes it",
        why="a model should be able to say what it is",
        test=f"{_MODEL}::test_an_empty_model_says_what_it_needs",
    ),
    KnownDifference(
        path="diffdet.nn.models.model.Model.export2onnx",
        old="fixes the batch size, feeds flat inputs only, fails for every head of objects and without an embedder",
        ours="exports every head with a batch axis of any size, masks included",
        why="an exported network is used with other batches than it was exported with",
        test=f"{_EXPORT}::test_flat_models_with_and_without_categories",
    ),
    KnownDifference(
        path="diffdet.nn.ensemble.ensemble.Ensemble.from_save",
        old="reads files in the order of their names as text: with more than ten models weights go to others",
        ours="the description names each file beside its weight",
        why="an ensemble predicts the same before and after it was saved",
        test=f"{_ENSEMBLE}::test_twelve_models_keep_their_weights_when_saved",
    ),
    KnownDifference(
        path="diffdet.nn.ensemble.ensemble.Ensemble.save",
        old="removes every file whose name begins alike, by a shell command, and makes stray folders",
        ours="writes one folder, replaces nothing but an ensemble, and that only when asked",
        why="files of others stay",
        test=f"{_ENSEMBLE}::test_saving_makes_one_folder_and_replaces_only_when_asked",
    ),
]
"""Losses, fits, models, ensembles."""

KNOWN_DIFFERENCES = [*TRAINING]
"""All of them."""
