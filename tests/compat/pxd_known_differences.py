"""What the background generator does otherwise than the module of Belle II's software of that name, on purpose."""

from __future__ import annotations

from compat.known_differences import KnownDifference

_CONSTRUCTOR = "tests/pxd/test_constructor.py"
_MODULE = "tests/pxd/test_module.py"
_PIXELS = "tests/kernels/test_pixels.py"
_WEIGHTS = "tests/overlay/test_weights.py"
_CLASS = "diffdet.pxd.background_generator.PXDBackgroundGenerator"
_INJECT = "diffdet.pxd.background_generator.inject_simulation"

MODULE = [
    KnownDifference(
        path=f"{_CLASS}.initialize",
        old="registers its array with a flag in the place of the durability: overlay never reads the digits",
        ours="registers the array of the event, not written out; overlay finds the generated digits",
        why="otherwise the digits of the background file would be used",
        test=f"{_MODULE}::test_overlay_sees_generated_digits_and_nothing_of_the_file",
    ),
    KnownDifference(
        path=f"{_CLASS}.event",
        old="assigns items of a TClonesArray from Python, which newer ROOT refuses",
        ours="fills the array in C++, or element by element where C++ cannot be compiled",
        why="works with newer ROOT, and faster",
        test=f"{_MODULE}::test_overlay_sees_generated_digits_and_nothing_of_the_file",
    ),
    KnownDifference(
        path=f"{_CLASS}.event",
        old="draws from torch's own generator: an event depends on what was drawn before, and forked workers repeat it",
        ours="keys an event by seed, experiment, run and number; `compatible=True` gives the old sequence, bit by bit",
        why="an event is the same in any order and any worker, and torch's generator is left alone",
        test=f"{_MODULE}::test_an_event_is_the_same_in_any_batch_and_order",
    ),
    KnownDifference(
        path=f"{_CLASS}.event",
        old="writes digits sorted by sensor, u and v",
        ours="writes them sorted by sensor, v and u",
        why="clustering wants that order wherever no sorter comes after",
        test=f"{_MODULE}::test_digits_come_sorted_by_sensor_v_and_u",
    ),
    KnownDifference(
        path=f"{_CLASS}.event",
        old="writes charges of 1 to 6 ADU, which the read-out never delivers",
        ours="takes them out, unless `compatible=True`",
        why="the threshold is 7 ADU",
        test=f"{_MODULE}::test_a_network_is_fast_and_respects_the_threshold_by_default",
    ),
    KnownDifference(
        path=f"{_CLASS}.initialize",
        old="logs an error without BGOverlayInput and goes on to use what is not there",
        ours="logs it and raises one that says what the path must contain",
        why="a clear end instead of a crash",
        test=f"{_MODULE}::test_without_overlay_input_there_is_one_clear_error",
    ),
    KnownDifference(
        path=f"{_CLASS}.initialize",
        old="sets torch's threads for the whole process; a second module fails",
        ours="sets the threads inside operations for its own work only, and those between them where that can be",
        why="several modules, and other users of torch, live in one process",
        test=f"{_MODULE}::test_torchs_own_generator_and_threads_stay_untouched",
    ),
    KnownDifference(
        path=_CLASS,
        old="appends its global tag always, also where a file of weights is given",
        ours="appends it only where weights will come from the conditions database",
        why="a job that needs no database should not change what it asks of it",
        test=f"{_MODULE}::test_the_list_of_tags_is_left_alone_where_the_database_is_not_asked",
    ),
    KnownDifference(
        path=_CLASS,
        old="takes truth values for integers: `seed=True` is 1",
        ours="refuses them with a TypeError",
        why="they are mistakes",
        test=f"{_CONSTRUCTOR}::test_wrong_types_are_type_errors",
    ),
    KnownDifference(
        path=f"{_CLASS}.initialize",
        old="raises what torch raises for weights that do not fit or cannot be read",
        ours="raises CheckpointError or StorageError, with every missing, unexpected and misshaped key",
        why="one tree of errors; files are read as tensors only, and never executed",
        test=f"{_WEIGHTS}::test_faults_are_all_listed_and_nothing_is_loaded",
    ),
]

INJECTION = [
    KnownDifference(
        path=_INJECT,
        old="builds the simulation on an empty path, so that modules which the user has added are added again",
        ours="builds it on a path that holds them",
        why="no second Gearbox, Geometry or simulation",
        test=f"{_MODULE}::test_injection_puts_the_module_behind_overlay_input",
    ),
    KnownDifference(
        path=_INJECT,
        old="silently leaves the generator out where no background files are given",
        ours="leaves it out, too, and warns",
        why="nobody should believe in background that is not there",
        test=f"{_MODULE}::test_injection_without_background_files_warns",
    ),
]

CHARGES = [
    KnownDifference(
        path="diffdet.kernels.pixels.charge_from_activation",
        old="cuts fractions of charges off, which loses 1 ADU for 97 of the 256 charges",
        ours='does so by default, and rounds with `rounding="nearest"`',
        why="for new weights every charge comes back",
        test=f"{_PIXELS}::test_rounding_recovers_every_charge_and_cutting_loses_97_in_single_precision",
    ),
]

KNOWN_DIFFERENCES = [*MODULE, *INJECTION, *CHARGES]
