"""What bodies, tails, convolutions and their layers do otherwise than the package whose names they keep, on purpose."""

from __future__ import annotations

from compat.known_differences import KnownDifference

_ABS_BLOCK = "tests/nn/blocks/test_abs_block.py"
_BODY = "tests/nn/blocks/test_body.py"
_CONV = "tests/nn/blocks/test_conv_blocks.py"
_TAIL = "tests/nn/blocks/test_tail.py"
_HELPERS = "tests/nn/test_helpers.py"
_ACTIVATIONS = "tests/nn/layers/test_activations.py"
_INIT = "tests/nn/test_initialisations.py"
_NORMS = "tests/nn/layers/test_batchnorms.py"
_ATTENTION = "tests/nn/layers/test_self_attention.py"

BLOCKS = [
    KnownDifference(
        path="diffdet.nn.models.blocks.abs_block.AbsBlock.get_param_count",
        old="counts trainable parameters whatever `trainable` says: 0 for a frozen block",
        ours="counts all with `trainable=False`",
        why="the argument then means what it says",
        test=f"{_ABS_BLOCK}::test_parameters_are_counted_trainable_or_all",
    ),
    KnownDifference(
        path="diffdet.nn.models.blocks.abs_block.AbsBlock",
        old="freezes in the constructors of some classes, so that others leave parameters trainable",
        ours="freezes all parameters once the outermost constructor has returned, of derived classes too",
        why="`freeze=True` has one meaning",
        test=f"{_ABS_BLOCK}::test_freezing_freezes_everything_whoever_made_it",
    ),
    KnownDifference(
        path="diffdet.nn.models.blocks.body.MultiBlock",
        old="leaves the bottleneck layers trainable with `freeze=True`",
        ours="freezes them too",
        why="a frozen body should not change",
        test=f"{_BODY}::test_freezing_freezes_everything",
    ),
    KnownDifference(
        path="diffdet.nn.models.blocks.body.MultiBlock",
        old="hands its own column numbers to its bodies, so a `MultiBlock` in a `MultiBlock` raises IndexError",
        ours="hands each body the columns of that body's input",
        why="bodies can be nested",
        test=f"{_BODY}::test_multi_blocks_can_be_nested",
    ),
    KnownDifference(
        path="diffdet.nn.models.blocks.body.MultiBlock",
        old="drops misspelt features in silence, and builds a body without features that fails when it is called",
        ours="refuses unknown names, bodies without features and lists of different length",
        why="a feature that is lost in silence costs performance and nobody knows",
        test=f"{_BODY}::test_features_that_do_not_exist_are_refused",
    ),
    KnownDifference(
        path="diffdet.nn.models.blocks.body.MultiBlock",
        old="repeats every output of a matrix head once for each named feature: 24 inputs from 6 columns",
        ours="takes each column once, in the order of the map of features",
        why="copies of a column carry nothing and cost weights",
        test=f"{_BODY}::test_columns_that_features_share_are_taken_once",
    ),
    KnownDifference(
        path="diffdet.nn.models.blocks.body.MultiBlock",
        old="overrides look-ups and freezing that a partial sets for its body",
        ours="keeps what the partial sets",
        why="one body can be frozen or initialised otherwise than the others",
        test=f"{_BODY}::test_what_a_partial_sets_is_kept",
    ),
    KnownDifference(
        path="diffdet.nn.models.blocks.body.FullyConnected",
        old="takes `res` without a word where `res` and `dense` are both set",
        ours="raises InputError",
        why="they exclude each other",
        test=f"{_BODY}::test_bad_arguments_are_refused",
    ),
    KnownDifference(
        path="diffdet.nn.models.blocks.body.FullyConnected",
        old="accepts a depth of 0 and raises IndexError when asked for its output size",
        ours="raises InputError for a depth or width below 1",
        why="the message comes where the mistake is made",
        test=f"{_BODY}::test_bad_arguments_are_refused",
    ),
]

CONVOLUTIONS = [
    KnownDifference(
        path="diffdet.nn.models.blocks.conv_blocks.Conv1DBlock",
        old="gives one column more for even kernels with padding `auto`",
        ours="keeps the number of columns; `padding=kernel_sz // 2` gives one more, as before",
        why="`auto` is documented to conserve the number of columns",
        test=f"{_CONV}::test_automatic_padding_keeps_the_columns",
    ),
    KnownDifference(
        path="diffdet.nn.models.blocks.conv_blocks.Conv1DBlock",
        old="asks for initial weights without fans, so `act='selu'` raises TypeError",
        ours="passes fan_in and fan_out of the kernel and groups",
        why="every activation can be used",
        test=f"{_CONV}::test_every_activation_can_be_used",
    ),
    KnownDifference(
        path="diffdet.nn.models.blocks.conv_blocks.Res1DBlock",
        old="fails for even kernels, whose two ways differ by two columns",
        ours="takes them, and refuses paddings that change the number of columns",
        why="the short cut and the layers have to fit",
        test=f"{_CONV}::test_short_cut_and_layers_fit",
    ),
    KnownDifference(
        path="diffdet.nn.models.blocks.conv_blocks.Res1DBlock",
        old="leaves the convolution of the short cut to torch's default, with a random bias",
        ours="starts it from `lookup_init('linear')` without bias",
        why="all weights come from the look-up that was asked for",
        test=f"{_CONV}::test_short_cut_starts_from_the_look_up",
    ),
]

TAILS = [
    KnownDifference(
        path="diffdet.nn.models.blocks.tail.ClassRegMulti",
        old="takes 'binary', 'Classification' or any misspelt objective for regression, a linear tail",
        ours="reads objectives in any case, and refuses unknown ones with the choices",
        why="a classifier without sigmoid trains, and is wrong",
        test=f"{_TAIL}::test_unknown_objectives_are_refused",
    ),
    KnownDifference(
        path="diffdet.nn.models.blocks.tail.ClassRegMulti",
        old="keeps ranges, means and standard deviations where `.to()` and `.double()` do not move them",
        ours="keeps them as buffers that are not saved",
        why="the tail works on any device and in both precisions",
        test=f"{_TAIL}::test_scales_move_with_the_module_and_are_not_saved",
    ),
    KnownDifference(
        path="diffdet.nn.models.blocks.tail.ClassRegMulti",
        old="prints a notice where `bias_init` is dropped for `y_mean`",
        ours="warns with the same words",
        why="a warning can be caught, counted and silenced",
        test=f"{_TAIL}::test_bias_beside_a_mean_is_dropped_with_a_warning",
    ),
]

LAYERS = [
    KnownDifference(
        path="diffdet.nn.models.layers.activations.lookup_act",
        old="knows no tanh, gelu, elu, leaky_relu or silu, and says 'Activation not implemented'",
        ours="knows them, and lists the choices with the nearest match",
        why="a misspelt name is found at once",
        test=f"{_ACTIVATIONS}::test_unknown_activations_are_refused_with_the_choices",
    ),
    KnownDifference(
        path="diffdet.nn.models.layers.activations.Swish",
        old="ignores `inplace` whatever it is set to",
        ours="overwrites the input where `inplace` is set",
        why="the argument then means what it says",
        test=f"{_ACTIVATIONS}::test_swish_can_work_in_place",
    ),
    KnownDifference(
        path="diffdet.nn.models.initialisations.lookup_uniform_init",
        old="draws weights for selu within 1/sqrt(fan_in), a third of the variance of the normal ones",
        ours="draws within sqrt(3/fan_in), the same variance",
        why="with a third of it signals die out from layer to layer",
        test=f"{_INIT}::test_uniform_weights_have_the_variance_of_normal_ones",
    ),
    KnownDifference(
        path="diffdet.nn.models.helpers.CatEmbedder",
        old="raises AssertionError where lists differ in length",
        ours="raises InputError with both lengths",
        why="assertions vanish under `python -O`",
        test=f"{_HELPERS}::test_sizes_that_do_not_fit_are_refused",
    ),
    KnownDifference(
        path="diffdet.nn.models.layers.batchnorms.RunningBatchNorm1d",
        old="moves its sums by 1 - 0.9 / sqrt(1e-5) = -284 for a batch of one sample",
        ours="treats a batch of one like one of two",
        why="one event should not destroy what was learnt",
        test=f"{_NORMS}::test_one_sample_does_not_upset_the_running_sums",
    ),
    KnownDifference(
        path="diffdet.nn.models.layers.self_attention.SelfAttention",
        old="has no mask: padding is attended to like an object",
        ours="takes a mask; masked objects are as if they were absent",
        why="events have different numbers of objects",
        test=f"{_ATTENTION}::test_masked_equals_absent",
    ),
]

KNOWN_DIFFERENCES = [*BLOCKS, *CONVOLUTIONS, *TAILS, *LAYERS]
