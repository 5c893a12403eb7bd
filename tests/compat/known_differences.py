"""What diffdet does otherwise than the packages whose names it keeps, on purpose.

One entry per difference that a user could notice. An entry goes when the older package changes, never because a test is
in its way. The list is read by `test_known_differences.py`, which holds every entry to an importable path and to a test
that exists.
"""

from __future__ import annotations

from dataclasses import dataclass

_GENERATION = "tests/tomography/muon/test_generation.py"
_PASSIVES = "tests/tomography/optimisation/data/test_passives.py"
_LOSS = "tests/tomography/optimisation/loss/test_loss.py"
_UTILS = "tests/tomography/test_utils.py"
_LADLE_DATA = "tests/tomography/benchmarks/test_ladle_furnace_data.py"
_SMALL_WALLS = "tests/tomography/benchmarks/test_small_walls.py"
_HEATMAP = "tests/tomography/volume/test_heatmap.py"
_LEVEL_LOSS = "tests/tomography/benchmarks/test_level_loss.py"
_LADLE_PLOTS = "tests/tomography/benchmarks/test_ladle_furnace_plotting.py"
_PGEANT = "tests/tomography/volume/test_pgeant.py"
_PLOTTING = "tests/tomography/plotting"
_U_LORRY = "tests/tomography/benchmarks/test_u_lorry.py"
_CALLBACKS = "tests/tomography/optimisation/test_callbacks.py"
_EVENTS = "tests/tomography/optimisation/test_fit_events.py"
_LADLE_CALLBACKS = "tests/tomography/benchmarks/test_ladle_furnace_callbacks.py"
_RESAMPLER = "tests/tomography/optimisation/test_resampler.py"
_WRAPPER = "tests/tomography/optimisation/test_wrapper.py"
_MUON_BATCH = "tests/tomography/muon/test_muon_batch.py"
_PANEL = "tests/tomography/volume/test_panel.py"
_VOLUME = "tests/tomography/volume/test_volume.py"
_TRACKS = "tests/tomography/inference/test_tracks.py"
_SCATTER_BATCH = "tests/tomography/inference/test_scatter_batch.py"
_VOLUME_INFERENCE = "tests/tomography/inference/test_volume_inference.py"
_GRADIENTS = "tests/tomography/test_step_gradients.py"
_SCATTERING = "tests/physics/test_scattering_physics.py"
_TRANSPORT = "tests/kernels/test_transport.py"
_LINES = "tests/kernels/test_lines.py"
_LADLE_INFERENCE = "tests/tomography/benchmarks/test_ladle_furnace_inference.py"


@dataclass(frozen=True, slots=True)
class KnownDifference:
    """A deliberate difference.

    Attributes:
        path: Where a user meets it: dotted path of a module, class, function, or member of a class.
        old: What the older package does.
        ours: What diffdet does.
        why: Why.
        test: Node id of the test that shows it, ``file::function``.
    """

    path: str
    old: str
    ours: str
    why: str
    test: str


MUONS = [
    KnownDifference(
        path="diffdet.tomography.muon.generation.AbsMuonGenerator.generate_set",
        old="takes the flux as probability per bin and leaves out the widths of the geometric energy bins: mean "
        "momentum 1.69 GeV (2016 model) and 2.03 GeV (2015 model)",
        ours="integrates the flux over each cell: 4.68 GeV and 6.77 GeV",
        why="the spectrum sampled is then the spectrum stated",
        test=f"{_GENERATION}::test_mean_and_median_are_those_of_the_spectrum",
    ),
    KnownDifference(
        path="diffdet.tomography.muon.generation.AbsMuonGenerator.generate_set",
        old="gives theta one of 200 values and energy one of 200",
        ours="samples both continuously inside the cells of the table",
        why="directions are not on a grid of 6 mrad",
        test=f"{_GENERATION}::test_kinematics_are_continuous",
    ),
    KnownDifference(
        path="diffdet.tomography.muon.generation.AbsMuonGenerator.generate_set",
        old="draws from NumPy's global generator, so muons depend on what was drawn before",
        ours="draws from a stream keyed by muon; without one, from a stream of torch's default generator",
        why="a seed fixes the muons, whatever the batch size or the order of work",
        test=f"{_GENERATION}::test_a_muon_is_the_same_whatever_is_drawn_with_it",
    ),
    KnownDifference(
        path="diffdet.tomography.muon.generation.AbsMuonGenerator",
        old="accepts energies below the muon's mass, empty ranges and theta beyond pi/2",
        ours="refuses them when the generator is made",
        why="their momenta are not numbers",
        test=f"{_GENERATION}::test_nonsense_is_refused",
    ),
]

UTILS = [
    KnownDifference(
        path="diffdet.tomography.utils.jacobian",
        old="returns None where y has length 0, and fails with AttributeError where y does not depend on x",
        ours="returns a tensor of the stated shape: without elements, or of zeros",
        why="`allow_unused` is documented, and the shape should not depend on the values",
        test=f"{_UTILS}::test_what_does_not_depend_has_derivative_zero_or_is_refused",
    ),
    KnownDifference(
        path="diffdet.tomography.utils.class_to_x0preds",
        old="raises KeyError for a class that the map lacks",
        ours="raises InputError that lists the classes",
        why="one family of exceptions for bad input",
        test=f"{_UTILS}::test_classes_become_radiation_lengths",
    ),
    KnownDifference(
        path="diffdet.tomography.utils.x0targs_to_classtargs",
        old="returns class ids as floats where the input is float",
        ours="returns integers",
        why="documented so, and needed to index with",
        test=f"{_UTILS}::test_radiation_lengths_become_the_nearest_classes",
    ),
    KnownDifference(
        path="diffdet.tomography.utils.x0_from_mixture",
        old="raises ValueError for missing or doubled fractions only",
        ours="raises InputError, a ValueError, also for lengths that differ and values out of range",
        why="one family of exceptions for bad input",
        test=f"{_UTILS}::test_exactly_one_kind_of_fraction_is_asked_for",
    ),
]

PASSIVES = [
    KnownDifference(
        path="diffdet.tomography.optimisation.data.passives.VoxelPassiveGenerator",
        old="draws the voxels anew each time the layout is loaded",
        ours="draws them once, when the layout is generated",
        why="a layout that is trained on, predicted and compared has to be one layout",
        test=f"{_PASSIVES}::test_a_layout_stays_as_drawn",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.data.passives.AbsPassiveGenerator.get_data",
        old="draws from NumPy's and torch's global generators",
        ours="draws from the generator passed in, or one made from torch's default generator",
        why="a seed fixes the layouts",
        test=f"{_PASSIVES}::test_layouts_follow_the_generator_and_nothing_else",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.data.passives.AbsBlockPassiveGenerator",
        old="layers whose top lies in the block belong to it: blocks sit half a voxel low",
        ours="a voxel belongs to a block if its centre lies in it, in all three directions",
        why="the volume of a block is then right on average, wherever it lies",
        test=f"{_PASSIVES}::test_voxels_of_a_block_are_those_whose_centre_it_holds",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.data.passives.AbsBlockPassiveGenerator",
        old="turns a block of fixed size into orientations that may not fit, and accepts blocks thinner than a voxel",
        ours="turns it among the orientations that fit; refuses blocks that fit in none or are thinner than a voxel",
        why="the block is always there, as documented",
        test=f"{_PASSIVES}::test_nonsense_is_refused_before_anything_is_drawn",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.data.passives.RandomBlockPassiveGenerator",
        old="redraws for ever where materials must differ and there is only one",
        ours="refuses that when the generator is made",
        why="every loop ends",
        test=f"{_PASSIVES}::test_nonsense_is_refused_before_anything_is_drawn",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.data.passives.PassiveYielder",
        old="shuffles the caller's list in place, with Python's global generator",
        ours="leaves the list alone and draws the order from a stream",
        why="what the caller holds is the caller's, and a seed fixes the order",
        test=f"{_PASSIVES}::test_a_list_is_handed_out_whole_and_left_alone",
    ),
]

LOSSES = [
    KnownDifference(
        path="diffdet.tomography.optimisation.loss.loss.AbsDetectorLoss",
        old="returns a loss of shape (1,) without a target budget",
        ours="returns a loss of shape () always",
        why="the shape should not depend on the budget",
        test=f"{_LOSS}::test_without_a_budget_the_loss_is_the_error",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.loss.loss.AbsDetectorLoss",
        old="prints the automatic cost coefficient, also without a budget, and its debug lines",
        ours="logs them, the first only where there is a budget",
        why="a library does not print",
        test=f"{_LOSS}::test_nothing_is_printed",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.loss.loss.AbsDetectorLoss",
        old="forgets its cost coefficient when saved, and takes NaN for one",
        ours="keeps it in the state dict, and waits for a finite error",
        why="a resumed run has to go on with the same loss",
        test=f"{_LOSS}::test_coefficient_survives_saving_and_copying",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.loss.loss.AbsMaterialClassLoss",
        old="replaces X0 by ids one after the other, so that an id equal to a known X0 is replaced again",
        ours="maps all of them at once",
        why="classes are then what the map says",
        test=f"{_UTILS}::test_an_id_that_equals_a_radiation_length_is_not_mapped_twice",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.loss.sub_losses.integer_class_loss",
        old="keeps the class axis with length 1, so that weights of shape (*) act on every row",
        ours="returns the documented shape (*), and weights act row by row",
        why="documented so",
        test=f"{_LOSS}::test_integer_class_loss_equals_the_slow_twin_and_reduces",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.loss.sub_losses.integer_class_loss",
        old="documents 1.0007 and 8.8773 for its example, which are of a version without normalisation",
        ours="gives what both compute, 0.0830 and 0.2471",
        why="the computation is the promise; the example was not updated",
        test=f"{_LOSS}::test_integer_class_loss_has_the_reference_values",
    ),
]

LADLE_FURNACE = [
    KnownDifference(
        path="diffdet.tomography.benchmarks.ladle_furnace.data.LadleFurnacePassiveGenerator",
        old="compares levels and layer tops exactly in float32, so a level on a boundary may leave its layer empty",
        ours="a level on a boundary fills up to it",
        why="target and layout agree at 0.6, 0.7, ... 1.3 m",
        test=f"{_LADLE_DATA}::test_levels_on_layer_boundaries_fill_up_to_them",
    ),
    KnownDifference(
        path="diffdet.tomography.benchmarks.ladle_furnace.loss.LadleFurnaceIntClassLoss",
        old="rounds levels down in float32: 0.7 m counts as two layers above a bottom at 0.4 m, not three",
        ours="counts a level on a layer's top as filling it",
        why="class and layout agree at 0.6, 0.7, ... 1.3 m",
        test=f"{_LEVEL_LOSS}::test_the_class_is_the_number_of_full_layers_above_the_floor",
    ),
    KnownDifference(
        path="diffdet.tomography.benchmarks.ladle_furnace.plotting",
        old="needs pandas and seaborn, and a folder that is there",
        ours="takes any mapping of columns, DataFrames too, and makes the folder",
        why="two dependencies less",
        test=f"{_LADLE_PLOTS}::test_each_comparison_writes_its_three_files",
    ),
]

OTHER_BENCHMARKS = [
    KnownDifference(
        path="diffdet.tomography.benchmarks.small_walls.data.SmallWallsPassiveGenerator",
        old="returns layouts that raise AttributeError when loaded",
        ours="returns layouts that can be loaded and agree with their target",
        why="the problem can be worked on",
        test=f"{_SMALL_WALLS}::test_layouts_can_be_loaded_and_agree_with_their_target",
    ),
    KnownDifference(
        path="diffdet.tomography.benchmarks.u_lorry.data.ULorryPassiveGenerator",
        old="compares volumes exactly in float32: 0.010 and 0.018 m^3 are refused at voxels of 0.1 m",
        ours="counts voxels to within rounding; refuses volumes of no cuboid that fits and names the nearest",
        why="0.010 m^3 are ten voxels",
        test=f"{_U_LORRY}::test_uranium_has_its_volume_as_one_cuboid_above_the_floor",
    ),
    KnownDifference(
        path="diffdet.tomography.benchmarks.u_lorry.data.ULorryPassiveGenerator",
        old="places the cuboid continuously in z, so that part of it may stick out of the block or replace the floor, "
        "and never at the far edge in x and y",
        ours="places it in whole voxels anywhere above the floor",
        why="the uranium then has the volume that was asked for",
        test=f"{_U_LORRY}::test_cuboids_come_in_all_shapes_and_places",
    ),
    KnownDifference(
        path="diffdet.tomography.benchmarks.u_lorry.data.ULorryPassiveGenerator",
        old="fills up to fill_frac times the absolute height of the block's top",
        ours="fills fill_frac of the height of the block",
        why="the load should not depend on where the block stands",
        test=f"{_U_LORRY}::test_scrap_fills_a_part_of_the_height_of_the_block",
    ),
    KnownDifference(
        path="diffdet.tomography.benchmarks.u_lorry.data.ULorryPassiveGenerator",
        old="draws the scrap anew each time the layout is loaded",
        ours="draws it once, when the layout is generated",
        why="a layout that is trained on, predicted and compared has to be one layout",
        test=f"{_U_LORRY}::test_a_layout_stays_as_drawn",
    ),
]

HEAT_MAP = [
    KnownDifference(
        path="diffdet.tomography.volume.heatmap.DetectorHeatMap",
        old="draws its clusters from torch's global generator",
        ours="spreads them evenly, always alike, or draws them from a generator that is passed in",
        why="no constructor draws by itself",
        test=f"{_HEATMAP}::test_start_can_be_drawn",
    ),
    KnownDifference(
        path="diffdet.tomography.volume.heatmap.DetectorHeatMap",
        old="holds mu, sig and norm twice in its state dict",
        ours="holds them once, and loads either form",
        why="two copies can disagree",
        test=f"{_HEATMAP}::test_state_is_saved_once_and_old_states_load",
    ),
    KnownDifference(
        path="diffdet.tomography.volume.heatmap.DetectorHeatMap.conform",
        old="bounds both axes below by the start in x and above by that in y, and lets widths shrink to 0",
        ours="bounds each axis by its own start, and widths by a hundredth of the initial extent",
        why="a detector off the diagonal stays where it belongs, and densities stay finite",
        test=f"{_HEATMAP}::test_conforming_keeps_each_axis_in_its_own_bounds",
    ),
    KnownDifference(
        path="diffdet.tomography.volume.heatmap.DetectorHeatMap.get_resolution",
        old="falls to 0 far away, where hits get infinite uncertainties",
        ours="stays at 1e-10 per m or above, as for panels",
        why="weights stay finite",
        test=f"{_HEATMAP}::test_far_away_it_sees_nothing_but_stays_finite",
    ),
    KnownDifference(
        path="diffdet.tomography.volume.heatmap.DetectorHeatMap",
        old="accepts realistic validation, and then clamps hits to numbers without meaning",
        ours="refuses it when the map is made",
        why="there is no physical detector behind a map",
        test=f"{_HEATMAP}::test_what_has_no_meaning_is_refused",
    ),
]

SCATTER_MODELS = [
    KnownDifference(
        path="diffdet.tomography.volume.scatter_model.PGEANT_SCATTER_MODEL",
        old="raises NotImplementedError for every muon",
        ours="draws angles and displacements from a table in the documented layout, once one is loaded",
        why="tails matter where single large scatters decide",
        test=f"{_PGEANT}::test_one_step_has_the_tabulated_width",
    ),
    KnownDifference(
        path="diffdet.tomography.volume.scatter_model.PGEANT_SCATTER_MODEL",
        old="means to draw displacements independent of angles, with the material of the nearest X0 as it is",
        ours="correlates them by sqrt(3)/2; scales what the table does not hold by Highland's width and 1 / (beta p)",
        why="vertices lie in the middle of a step, and widths do not jump between bins and materials",
        test=f"{_PGEANT}::test_displacement_is_that_of_a_homogeneous_block_and_on_the_side_of_the_angle",
    ),
]

PLOTTING = [
    KnownDifference(
        path="diffdet.tomography.volume.volume.Volume.draw",
        old="applies the limits of x to y and those of y to x",
        ours="applies each to its own axis, and draws all axes to one scale",
        why="the picture shows what was asked for",
        test=f"{_PLOTTING}/test_volume.py::test_limits_labels_scale_and_legend",
    ),
    KnownDifference(
        path="diffdet.tomography.volume.volume.Volume.draw",
        old="raises TypeError for heat maps",
        ours="draws any panel that says where it is and how wide; a heat map at four standard deviations",
        why="every apparatus can be looked at",
        test=f"{_PLOTTING}/test_volume.py::test_heat_maps_are_drawn_at_their_effective_size",
    ),
    KnownDifference(
        path="diffdet.tomography.plotting.predictions.plot_pred_true_x0",
        old="colours X0 linearly, so that air (304 m) hides everything else",
        ours="colours it by its logarithm where it spans more than a factor of 20",
        why="steel, slag and water can be told apart",
        test=f"{_PLOTTING}/test_predictions.py::test_many_orders_of_magnitude_are_told_apart",
    ),
    KnownDifference(
        path="diffdet.tomography.plotting.diagnostics.plot_hit_density",
        old="needs a pandas data frame and seaborn, and stretches the picture to the farthest hit",
        ours="takes data frames, mappings and tensors, shows the bulk of the hits, and counts those outside",
        why="a hit beside a panel may be recorded kilometres away",
        test=f"{_PLOTTING}/test_diagnostics.py::test_positions_without_end_do_not_squeeze_the_picture",
    ),
    KnownDifference(
        path="diffdet.tomography.inference.scattering.ScatterBatch.plot_scatter",
        old="always calls for a window",
        ours="shows the figure in a window or notebook, and only saves it where there is neither",
        why="scripts run on machines without a screen",
        test=f"{_PLOTTING}/test_appearance.py::test_figures_are_shown_where_somebody_can_see_them",
    ),
]

GEOMETRY = [
    KnownDifference(
        path="diffdet.tomography.volume.volume.Volume.lookup_passive_xyz_coords",
        old="takes z = 0.3 m, on the second voxel of 0.1 m above z = 0.2 m, for the first, and a far face for a voxel "
        "that is not there",
        ours="forgives rounding at edges, and books the outermost faces to the last voxels",
        why="positions in float32 are off by 1e-7 m",
        test="tests/kernels/test_voxels.py::test_positions_on_edges_belong_to_the_voxel_above",
    ),
    KnownDifference(
        path="diffdet.tomography.volume.volume.Volume.xyz_edges",
        old="rounds z to multiples of the voxel edge: a block from 0.75 to 1.05 m has two edges for three layers",
        ours="counts edges from the bottom of the block",
        why="a block may stand anywhere",
        test="tests/kernels/test_voxels.py::test_a_block_that_starts_off_the_grid_has_all_its_edges",
    ),
    KnownDifference(
        path="diffdet.tomography.muon.muon_batch.MuonBatch.phi_from_theta_xy",
        old="gives a vertical muon the azimuth NaN, and deletes it",
        ours="gives it the azimuth 0",
        why="vertical muons exist",
        test="tests/kernels/test_angles.py::test_vertical_track_has_azimuth_zero_and_gradient_zero",
    ),
]

FITTING = [
    KnownDifference(
        path="diffdet.tomography.optimisation.callbacks.opt_callbacks.OneCycle",
        old="second phase starts at the final value and rises to the middle one, one epoch late, counted "
        "from the first epoch of the fit; an error with short warm-ups",
        ours="from init to mid over `warmup_length` epochs, then from mid to final, counted from the end of "
        "the warm-ups, exact at the ends",
        why="it is what is documented",
        test=f"{_CALLBACKS}::test_one_cycle_goes_up_then_down",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.callbacks.opt_callbacks.OneCycle",
        old="learning rates are absolute",
        ours="with `relative=True` they are multiples of the rate at the beginning of the schedule, such as "
        "`OptConfig` set",
        why="a fit need not be done twice to learn the rates",
        test=f"{_CALLBACKS}::test_one_cycle_of_what_a_warm_up_has_found",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.callbacks.detector_callbacks.PanelCentring",
        old="gives all panels of a layer one storage, so the next step moves them once per panel; acts in "
        "warm-ups, too",
        ours="gives each panel the mean and its own storage; nothing moves while a warm-up keeps the detector",
        why="a step of 0.01 m should be 0.01 m",
        test=f"{_CALLBACKS}::test_centred_panels_keep_a_storage_each_and_move_once",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.callbacks.grad_callbacks.NoMoreNaNs",
        old="infinite gradients become 3.4e38; a missing gradient is an error; silent",
        ours="infinite gradients become 0, missing ones are passed over, and all repairs are counted and logged",
        why="one such step would throw a panel out of the volume",
        test=f"{_CALLBACKS}::test_gradients_that_are_not_finite_become_zero_and_are_counted",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.callbacks.warmup_callbacks.OptConfig",
        old="a median gradient of 0 gives an infinite learning rate",
        ours="an error that names the optimiser",
        why="an infinite rate destroys the detector",
        test=f"{_CALLBACKS}::test_a_median_gradient_of_zero_is_told",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.callbacks.data_callbacks.MuonResampler",
        old="draws muon by muon until all hit, for ever if none can; results depend on the size of batches",
        ours="replacements come from a stream of each block of 1024 muons; after 1,048,576 candidates an error says so",
        why="every loop is bounded, and a muon does not depend on its batch",
        test=f"{_RESAMPLER}::test_a_muon_does_not_depend_on_the_batch_it_flies_in",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.callbacks.pred_callbacks.PredHandler",
        old="fails where a volume has no prediction",
        ours="NaN with the shape of the target stands in its place, and a warning says so",
        why="one blind volume should not cost the others",
        test=f"{_CALLBACKS}::test_volumes_without_a_prediction_keep_their_place",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.callbacks.pred_callbacks.Save2HDF5PredHandler",
        old="opens and extends the file for every volume: a kill may leave it damaged or with rows that do not match",
        ours="writes the whole file anew, atomically, while predictions are made and when they end",
        why="a kill leaves a file that opens and holds the rows written before",
        test="tests/tomography/optimisation/test_predictions_killed.py"
        "::test_a_killed_prediction_leaves_every_row_that_was_written",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.callbacks.diagnostic_callbacks.ScatterRecord",
        old="layers are right only for volumes that are symmetric in z",
        ours="layers are counted from the top of the passive block",
        why="other volumes exist",
        test=f"{_CALLBACKS}::test_scatterings_inside_the_volume_are_recorded",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.callbacks.monitors.MetricLogger",
        old="divides by zero where no batch of validation volumes is complete; leaves the animation's pictures behind",
        ours="counts every batch; pictures stay in memory",
        why="small validation sets are common",
        test=f"{_CALLBACKS}::test_losses_and_metrics_are_logged",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.callbacks.opt_callbacks.EpochSave",
        old="files are pickles",
        ours="files are safetensors under the same names; `load` reads the older ones without executing anything",
        why="a file that is loaded must not run code",
        test=f"{_CALLBACKS}::test_epochs_are_saved",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.wrapper.volume_wrapper.AbsVolumeWrapper.fit",
        old="drops a last batch of volumes that is smaller than `passive_bs`, and the muons beyond a "
        "multiple of `mu_bs`",
        ours="uses all volumes and all muons",
        why="all volumes and muons that were asked for count",
        test=f"{_EVENTS}::test_order_of_a_whole_fit_and_a_prediction",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.wrapper.volume_wrapper.AbsVolumeWrapper.fit",
        old="divides the loss of a batch by `passive_bs` also where volumes gave no prediction",
        ours="divides by the number of volumes that gave one",
        why="blind volumes should not make a detector look better",
        test=f"{_EVENTS}::test_volumes_without_a_prediction_do_not_count",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.wrapper.volume_wrapper.AbsVolumeWrapper.fit",
        old="conforms detectors after every batch, also in warm-ups",
        ours="conforms them after updates only",
        why="a warm-up keeps the detector as it is",
        test=f"{_WRAPPER}::test_detectors_are_brought_into_bounds_after_updates_only",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.wrapper.volume_wrapper.AbsVolumeWrapper.fit",
        old="goes on with NaN, or stops nowhere",
        ours="ends with `NonFiniteError` before NaN or infinity reaches the detector",
        why="a spoilt detector tells nothing",
        test=f"{_WRAPPER}::test_what_is_not_finite_ends_the_fit_before_it_reaches_the_detector",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.wrapper.volume_wrapper.AbsVolumeWrapper.fit",
        old="depends on three global random generators: a validation changes the training",
        ours="every number is keyed by seed, state, epoch, volume and muon; validation uses the same muons every epoch",
        why="one seed, one result",
        test=f"{_WRAPPER}::test_one_seed_gives_one_result_whatever_else_goes_on",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.wrapper.volume_wrapper.AbsVolumeWrapper.fit",
        old="creates `cb_savepath` at once",
        ours="creates it when something is written to it",
        why="a fit should leave nothing behind unasked",
        test=f"{_WRAPPER}::test_fits_write_nothing_unless_told",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.wrapper.volume_wrapper.AbsVolumeWrapper.predict",
        old="turns the caller's shuffling off for good, appends to the caller's list, shares one default "
        "handler among all calls",
        ours="leaves its arguments alone; every call has its own handler",
        why="predicting twice should give two results",
        test=f"{_WRAPPER}::test_predict_leaves_its_arguments_alone",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.wrapper.volume_wrapper.AbsVolumeWrapper.load",
        old="restores only optimisers whose names contain '_opt'; unpickles",
        ours="restores all; executes nothing",
        why="momentum is part of the state",
        test=f"{_WRAPPER}::test_optimisers_of_any_name_are_restored",
    ),
    KnownDifference(
        path="diffdet.tomography.optimisation.wrapper.volume_wrapper.FitParams",
        old="takes any name",
        ours="refuses names that are no fields, with the nearest one",
        why="a misspelt field would be ignored",
        test=f"{_EVENTS}::test_fit_params_refuses_what_it_does_not_know",
    ),
    KnownDifference(
        path="diffdet.tomography.benchmarks.ladle_furnace.inference.LinearCorrectionCallback",
        old="runs 10,000 steps of an optimiser after every batch",
        ours="computes the minimum that they approach",
        why="it is exact and takes no time",
        test=f"{_LADLE_CALLBACKS}::test_the_correction_is_the_exact_minimum_and_serves_from_the_next_batch_on",
    ),
]

FLIGHT_AND_INFERENCE = [
    KnownDifference(
        path="diffdet.tomography.volume.layer.PassiveLayer",
        old="displaces a scattered muon to the side opposite to its deflection: correlation -0.865 in every step",
        ours="displaces it to the same side: correlation +sqrt(3)/2",
        why="so the PDG's formulae say; the apparent vertex then lies inside the material",
        test=f"{_SCATTERING}::test_muons_are_displaced_to_the_side_they_are_deflected_to",
    ),
    KnownDifference(
        path="diffdet.tomography.volume.layer.PassiveLayer",
        old="applies Highland's formula to every step: 8 to 13 % too narrow with the default steps, and dependent"
        " on them",
        ours='adds up radiation lengths, so the total has the formula\'s width whatever the steps; "pdg-step" has '
        "the older way",
        why="the formula is one for total thicknesses",
        test=f"{_SCATTERING}::test_ten_centimetres_scatter_alike_however_they_are_cut",
    ),
    KnownDifference(
        path="diffdet.tomography.volume.layer.PassiveLayer",
        old="takes beta to be 1",
        ours="divides by beta times momentum",
        why="at 0.5 GeV it is 2 %, below that more",
        test=f"{_SCATTERING}::test_width_goes_with_one_over_beta_p",
    ),
    KnownDifference(
        path="diffdet.tomography.volume.layer.PassiveLayer",
        old="steps for ever with muons that fly almost horizontally",
        ours="crosses a layer in one operation, whatever the inclination",
        why="every loop ends",
        test=f"{_TRANSPORT}::test_nearly_horizontal_muons_leave_sideways_without_trouble",
    ),
    KnownDifference(
        path="diffdet.tomography.muon.muon_batch.MuonBatch.scatter_dtheta_xy",
        old="loses exactly vertical muons, whose azimuth becomes NaN",
        ours="keeps them, with azimuth 0",
        why="a vertical muon is a muon",
        test=f"{_MUON_BATCH}::test_a_vertical_muon_can_be_scattered_and_is_not_lost",
    ),
    KnownDifference(
        path="diffdet.tomography.muon.muon_batch.MuonBatch",
        old="draws scattering and smearing from torch's global generator",
        ours="draws from a stream keyed by muon, so hits are the same bit for bit however muons are batched",
        why="a seed fixes the muons, whatever the batch size or the order of work",
        test=f"{_MUON_BATCH}::test_hits_do_not_depend_on_how_muons_are_batched",
    ),
    KnownDifference(
        path="diffdet.tomography.muon.muon_batch.MuonBatch.snapshot_xyz",
        old="is called behind every layer, though nobody reads the copies",
        ours="is called on request only: `Volume(..., snapshots=True)`",
        why="copies of all positions cost memory",
        test=f"{_VOLUME}::test_snapshots_on_request",
    ),
    KnownDifference(
        path="diffdet.tomography.volume.panel.DetectorPanel.get_hits",
        old="differentiates by z as if the plane were mislabelled: 2 to 4 orders of magnitude too large",
        ours="moves the hit along the track with the panel",
        why="so finite differences say",
        test=f"{_PANEL}::test_hits_follow_every_parameter",
    ),
    KnownDifference(
        path="diffdet.tomography.volume.panel.DetectorPanel.get_hits",
        old="gives hits at infinity where a physical panel is missed",
        ours="gives NaN there, with infinite uncertainty and efficiency 0, and keeps gradients finite",
        why="documented so",
        test=f"{_PANEL}::test_hits_have_the_documented_form",
    ),
    KnownDifference(
        path="diffdet.tomography.volume.panel.DetectorPanel.clamp_params",
        old="moves panels at the edge of their layer by a random distance at every update",
        ours="leaves panels inside alone, and brings others back to a fixed distance from the edge",
        why="nothing that is not learnt should move, and nothing be random",
        test=f"{_PANEL}::test_a_panel_outside_its_box_is_brought_back_and_one_inside_is_left_alone",
    ),
    KnownDifference(
        path="diffdet.tomography.volume.panel.DetectorPanel",
        old="accepts efficiencies above 1 and non-finite positions, and refuses whole numbers",
        ours="refuses the former and takes the latter",
        why="an efficiency is a probability, and 1 is a number",
        test=f"{_PANEL}::test_nonsense_is_refused",
    ),
    KnownDifference(
        path="diffdet.tomography.volume.volume.Volume.get_cost",
        old="returns an integer tensor for an integer budget",
        ours="returns a floating one",
        why="a loss adds it to floating numbers",
        test=f"{_VOLUME}::test_a_budget_is_shared_by_softmax_and_spent_to_the_last_coin",
    ),
    KnownDifference(
        path="diffdet.tomography.volume.volume.Volume.lookup_passive_xyz_coords",
        old="shifts the z of the caller's tensor, in place",
        ours="leaves it alone",
        why="looking something up should not move it",
        test=f"{_VOLUME}::test_look_up_finds_the_documented_voxels_and_leaves_its_argument_alone",
    ),
    KnownDifference(
        path="diffdet.tomography.volume.volume.Volume.get_rad_cube",
        old="skips layers without a layout, so that the cube is too short",
        ours="refuses, with the layer that lacks one",
        why="the shape of the cube should not depend on what was forgotten",
        test=f"{_VOLUME}::test_a_volume_without_a_layout_says_so",
    ),
    KnownDifference(
        path="diffdet.tomography.volume.volume.Volume",
        old="accepts layers that overlap, leave gaps between voxels, or stand in any order",
        ours="refuses them when the volume is made",
        why="all that follows assumes one contiguous block and layers from top to bottom",
        test=f"{_VOLUME}::test_layers_that_do_not_fit_are_refused",
    ),
    KnownDifference(
        path="diffdet.tomography.inference.scattering.ScatterBatch",
        old="in evaluation drops muons that miss a single panel",
        ours="uses all with two hits above and two below",
        why="two hits determine a line, and the efficiency of a muon counts the same",
        test=f"{_TRACKS}::test_evaluation_uses_all_muons_with_two_hits_on_each_side",
    ),
    KnownDifference(
        path="diffdet.tomography.inference.scattering.ScatterBatch.total_scatter",
        old="takes acos of a rounded cosine: below 0.3 mrad angles are 0 in float32, and lost",
        ours="takes atan2 of what does not cancel",
        why="in air most muons scatter by less",
        test=f"{_SCATTER_BATCH}::test_small_scatters_are_seen_in_float32",
    ),
    KnownDifference(
        path="diffdet.tomography.inference.scattering.ScatterBatch.get_muon_trajectory",
        old="fits with moments that are not centred: errors of 5e-4 rad from rounding alone for the furnace's "
        "first detector",
        ours="centres them: errors below a thousandth of the statistical ones",
        why="rounding should not be seen",
        test=f"{_LINES}::test_float32_fits_are_within_a_thousandth_of_their_uncertainty",
    ),
    KnownDifference(
        path="diffdet.tomography.inference.scattering.ScatterBatch",
        old="propagates uncertainties by the Jacobian of all muons by all hits, in time and memory quadratic in "
        "muons, and cannot differentiate it",
        ours="has closed forms, linear in muons and differentiable",
        why="the term d(uncertainty)/d(panel) is most of the gradient",
        test=f"{_GRADIENTS}::test_voxel_loss",
    ),
    KnownDifference(
        path="diffdet.tomography.inference.scattering.ScatterBatch",
        old="changes with its muons when they are filtered later",
        ours="keeps what the muons were when it was made",
        why="two batches of the same muons would not fit together",
        test=f"{_SCATTER_BATCH}::test_what_is_done_to_the_muons_afterwards_changes_nothing",
    ),
    KnownDifference(
        path="diffdet.tomography.inference.scattering.ScatterBatch",
        old="fails where a single muon, or no muon, can be used, with a detector that does not learn, or with one"
        " panel on a side",
        ours="gives batches of any length, with a warning where none can be used",
        why="a batch without use is no error in a fit",
        test=f"{_TRACKS}::test_one_panel_on_a_side_warns_that_nothing_can_be_used",
    ),
    KnownDifference(
        path="diffdet.tomography.inference.volume.AbsX0Inferrer",
        old="holds probabilities of all muons for all voxels, computed in a loop over voxels",
        ours="holds one factor per axis, summed as products of matrices",
        why="time and memory are linear in muons",
        test=f"{_VOLUME_INFERENCE}::test_no_array_of_muons_times_voxels_exists",
    ),
    KnownDifference(
        path="diffdet.tomography.inference.volume.AbsX0Inferrer",
        old="keeps every muon of a volume, with its graph",
        ours="forgets muons on request (`retain_muons`), with the same result bit for bit",
        why="a stream of muons should not fill the memory",
        test=f"{_VOLUME_INFERENCE}::test_predictions_do_not_depend_on_how_muons_are_batched_nor_on_forgetting_them",
    ),
    KnownDifference(
        path="diffdet.tomography.inference.volume.DenseBlockClassifierFromX0s",
        old="takes a third of the voxels asked for as the block",
        ours="takes as many as asked for",
        why="it counted three coordinates of each voxel",
        test=f"{_VOLUME_INFERENCE}::test_dense_block_statistic_is_that_of_the_recipe",
    ),
    KnownDifference(
        path="diffdet.tomography.benchmarks.ladle_furnace.volume.get_initial_detector",
        old="gives one panel above smoothness 0.1 and one below efficiency 1, whatever is asked for",
        ours="makes all panels alike, in all three detectors",
        why="otherwise, the arguments would not mean what they say",
        test=f"{_LADLE_INFERENCE}::test_all_panels_of_a_detector_are_alike",
    ),
    KnownDifference(
        path="diffdet.tomography.benchmarks.ladle_furnace.inference.PocaZLadleFurnaceFillLevelInferrer",
        old="takes the furnace to be square, and fails where a point is known exactly or nearly no muon has weight",
        ours="takes its two widths, and gives a height in both cases",
        why="rare batches should not end a fit",
        test=f"{_LADLE_INFERENCE}::test_muons_beside_the_furnace_do_not_make_a_height_of_nothing",
    ),
]

KNOWN_DIFFERENCES = [
    *MUONS,
    *UTILS,
    *PASSIVES,
    *LOSSES,
    *LADLE_FURNACE,
    *OTHER_BENCHMARKS,
    *HEAT_MAP,
    *SCATTER_MODELS,
    *PLOTTING,
    *GEOMETRY,
    *FITTING,
    *FLIGHT_AND_INFERENCE,
]
