"""What data, kinematics, significance and pictures do otherwise than the package whose names they keep, on purpose."""

from __future__ import annotations

from compat.known_differences import KnownDifference

_FOLDS = "tests/nn/data/test_fold_yielder.py"
_FILES = "tests/nn/data/test_fold_file.py"
_PREPROCESSING = "tests/nn/data/test_preprocessing.py"
_AUGMENTATION = "tests/nn/data/test_augmentation.py"
_KINEMATICS = "tests/nn/physics/test_kinematics.py"
_SIGNIFICANCE = "tests/nn/physics/test_significance.py"
_PLOTS = "tests/nn/plotting/test_plots.py"

KNOWN_DIFFERENCES = [
    KnownDifference(
        path="diffdet.nn.data.preprocessing.proc_cats",
        old="replaces values by codes one after the other, so that -1, 0, 1 all end as one code",
        ours="codes all values of a column at once",
        why="a charge has three values, not one",
        test=f"{_PREPROCESSING}::test_charges_keep_their_codes",
    ),
    KnownDifference(
        path="diffdet.nn.data.preprocessing.proc_cats",
        old="codes NaN, or fails after it has changed part of the table",
        ours="refuses NaN and unknown values by column and row, before anything is changed",
        why="a category that does not exist should not become one in silence",
        test=f"{_PREPROCESSING}::test_bad_categories_are_refused_and_nothing_is_changed",
    ),
    KnownDifference(
        path="diffdet.nn.data.preprocessing.fit_input_pipe",
        old="returns a pipeline of another library, saved by pickle",
        ours="returns a `Scaler` of plain numbers, saved as JSON",
        why="reading a file must not execute code, and numbers outlive versions of libraries",
        test=f"{_PREPROCESSING}::test_pipes_of_tables",
    ),
    KnownDifference(
        path="diffdet.nn.data.fold_yielder.FoldYielder",
        old="yields NaN in matrices for features that do not exist, which makes the output of every network NaN",
        ours="yields 0 there, as in flat features",
        why="data given as a matrix and given flat are the same data",
        test=f"{_FILES}::test_matrices_hold_zero_where_the_file_holds_nan",
    ),
    KnownDifference(
        path="diffdet.nn.data.fold_yielder.FoldYielder",
        old="opens data for writing, and writes predictions into them",
        ours="opens data read-only and keeps predictions in memory, unless `mode='r+'` is given",
        why="data that several programs read should not be changed by one that only reads",
        test=f"{_FILES}::test_files_are_opened_read_only_and_predictions_kept_in_memory",
    ),
    KnownDifference(
        path="diffdet.nn.data.fold_yielder.FoldYielder",
        old="raises AttributeError for files without meta data",
        ours="numbers the features, or takes their names as arguments",
        why="the arrays are there, and names can be given",
        test=f"{_FILES}::test_a_file_without_meta_data_can_be_read",
    ),
    KnownDifference(
        path="diffdet.nn.data.fold_yielder.FoldYielder.add_ignore",
        old="takes names of features that do not exist, and ignores nothing",
        ours="refuses them, with the nearest name",
        why="a feature that was to be left out would be trained on",
        test=f"{_FOLDS}::test_ignored_features_are_left_out_and_misspelt_ones_refused",
    ),
    KnownDifference(
        path="diffdet.nn.data.fold_file.df2foldfile",
        old="leaves a feature of the matrix in the flat inputs where it is the only one that is doubled",
        ours="leaves out every feature that the matrix holds",
        why="one rule for one and for several features",
        test=f"{_FILES}::test_every_feature_of_the_matrix_leaves_the_flat_inputs",
    ),
    KnownDifference(
        path="diffdet.nn.data.fold_file.df2foldfile",
        old="removes the old file by a shell command with the user's name in it, then writes",
        ours="writes beside, and replaces the old file when all is written",
        why="a name may hold anything, and a full disk should not cost the old data",
        test=f"{_FILES}::test_a_write_that_fails_leaves_what_was_there",
    ),
    KnownDifference(
        path="diffdet.nn.data.augmentation.HEPAugFoldYielder",
        old="with random turns at test time, turns targets by another angle than inputs",
        ours="turns an event and its targets by one angle",
        why="the target of a turned event is the turned target",
        test=f"{_AUGMENTATION}::test_targets_turn_by_the_angle_of_inputs_at_test_time",
    ),
    KnownDifference(
        path="diffdet.nn.data.augmentation.HEPAugFoldYielder",
        old="turns momenta as they are yielded, standardised by different means and widths of px and py",
        ours="undoes the scaling, turns, and scales again",
        why="a turn must keep transverse momenta and angles between vectors",
        test=f"{_AUGMENTATION}::test_turning_scaled_momenta_as_they_are_would_change_them",
    ),
    KnownDifference(
        path="diffdet.nn.physics.kinematics.to_pt_eta_phi",
        old="gives azimuth +pi or -pi at random for px < 0, py = 0",
        ours="gives +pi, whatever the sign of the zero",
        why="equal momenta have equal coordinates",
        test=f"{_KINEMATICS}::test_azimuth_along_minus_x_is_plus_pi_always",
    ),
    KnownDifference(
        path="diffdet.nn.physics.significance.ams_scan_slow",
        old="computes every cut anew from the whole table",
        ours="looks at all cuts by one sort, with the same result as a slow search",
        why="a million events take a second",
        test=f"{_SIGNIFICANCE}::test_the_scan_with_statistical_uncertainty_equals_a_slow_search",
    ),
    KnownDifference(
        path="diffdet.nn.physics.significance.ams_scan_quick",
        old="looks at some of the cuts, so that the best may be missed",
        ours="looks at all that separate events",
        why="exact costs no more",
        test=f"{_SIGNIFICANCE}::test_the_best_cut_equals_that_of_a_slow_search",
    ),
    KnownDifference(
        path="diffdet.nn.plotting.plot_settings.PlotSettings",
        old="drops settings of unknown name in silence",
        ours="refuses them, with the nearest name",
        why="a misspelt size should not be the default size",
        test=f"{_PLOTS}::test_misspelt_settings_are_refused",
    ),
]
