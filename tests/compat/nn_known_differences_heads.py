"""What heads and graph blocks do otherwise than the package whose names they keep, on purpose."""

from __future__ import annotations

from compat.known_differences import KnownDifference

_HEAD = "diffdet.nn.models.blocks.head"
_GRAPH = "diffdet.nn.models.blocks.gnn_blocks"
_INTERACTION = "tests/nn/blocks/test_interaction_net.py"
_MATRIX = "tests/nn/blocks/test_matrix_head.py"
_MASKS = "tests/nn/blocks/test_head_masks.py"
_CAT = "tests/nn/blocks/test_cat_emb_head.py"
_MULTI = "tests/nn/blocks/test_multi_head.py"
_RECURRENT = "tests/nn/blocks/test_recurrent_head.py"
_CONV = "tests/nn/blocks/test_conv_head.py"
_LORENTZ = "tests/nn/blocks/test_lorentz_heads.py"
_BOOST = "tests/kernels/test_lorentz.py"
_GNN = "tests/nn/blocks/test_gnn_blocks.py"
_DEPLOY = "tests/nn/blocks/test_head_deploy.py"

OBJECTS = [
    KnownDifference(
        path=f"{_HEAD}.AbsMatrixHead",
        old="knows no absent objects: padding is an object of zeros like any other",
        ours="takes a mask of the objects that are present; an absent one is as if it were not there",
        why="events have different numbers of objects",
        test=f"{_MASKS}::test_masked_equals_absent",
    ),
    KnownDifference(
        path=f"{_HEAD}.AbsMatrixHead",
        old="zeroes cells without a column in flat input only, so that NaN in a stored matrix makes the output NaN",
        ours="zeroes them in a matrix that is handed over, too",
        why="the same data give the same output however they are handed over",
        test=f"{_MATRIX}::test_cells_without_a_column_are_zero_however_objects_are_handed_over",
    ),
    KnownDifference(
        path=f"{_HEAD}.AbsMatrixHead",
        old="keeps its lookups on the device that was chosen when the package was imported",
        ours="keeps them as buffers, which move with the head and are not saved",
        why="a head runs where it is put",
        test=f"{_MATRIX}::test_lookups_move_with_the_head_and_are_not_saved",
    ),
    KnownDifference(
        path=f"{_HEAD}.AbsMatrixHead",
        old="takes any names of objects and features: all cells of a misspelt one are zero",
        ours="refuses an object or feature without any column if a column that is left over looks like it",
        why="an object that is lost in silence costs performance and nobody knows",
        test=f"{_MATRIX}::test_names_that_cannot_be_meant_are_refused",
    ),
    KnownDifference(
        path=f"{_HEAD}.AbsMatrixHead",
        old="takes a matrix of any shape; one in the other layout fails somewhere inside, or not at all",
        ours="refuses it with both shapes",
        why="rows taken for columns train without an error",
        test=f"{_MATRIX}::test_shapes_that_do_not_fit_are_refused",
    ),
    KnownDifference(
        path=f"{_HEAD}.AbsMatrixHead",
        old="zeroes cells in place, which no ONNX operator can do, so that no head with objects exports",
        ours="gathers columns from the input with one column of zeros appended",
        why="every head exports, for any number of events a batch",
        test=f"{_DEPLOY}::test_onnx_gives_the_same_numbers",
    ),
    KnownDifference(
        path=f"{_HEAD}.InteractionNet",
        old="swallows arguments that it does not know",
        ours="refuses them and names the nearest one, but for those that builders hand to all heads",
        why="a misspelt `bn` should not be lost",
        test=f"{_INTERACTION}::test_wrong_arguments_are_refused",
    ),
    KnownDifference(
        path=f"{_HEAD}.InteractionNet",
        old="sums over a ring: V - 1 times the message of the next object, 4 of 12 pairs for 4 objects",
        ours="sums over all V (V - 1) ordered pairs; `legacy_ring=True` gives the ring for old weights",
        why="that is the interaction network, and its sum does not depend on the order of objects",
        test=f"{_INTERACTION}::test_every_ordered_pair_interacts",
    ),
    KnownDifference(
        path=f"{_GRAPH}.InteractionNet",
        old="sums over the same ring",
        ours="sums over all ordered pairs; `legacy_ring=True` gives the ring",
        why="as for the head of this name",
        test=f"{_INTERACTION}::test_head_and_graph_block_agree",
    ),
]

FLAT = [
    KnownDifference(
        path=f"{_HEAD}.CatEmbHead",
        old="drops out the wrong tensor, so that `do_cat` has no effect",
        ours="drops out the embeddings",
        why="that is what the rate is for",
        test=f"{_CAT}::test_dropout_acts_on_the_columns_that_it_names",
    ),
    KnownDifference(
        path=f"{_HEAD}.CatEmbHead",
        old="loads one saved embedding only, whatever its name, and runs what a pickle in the file says",
        ours="loads every embedding by name, tensors only, and refuses other shapes",
        why="embeddings belong to features, and files may come from anywhere",
        test=f"{_CAT}::test_embeddings_are_saved_and_loaded_by_name",
    ),
    KnownDifference(
        path=f"{_HEAD}.CatEmbHead",
        old="raises IndexError without a name for codes outside their range, and for NaN",
        ours="raises InputError with feature, value and row",
        why="the column is what one has to look at",
        test=f"{_CAT}::test_codes_that_no_embedding_has_are_refused_by_name",
    ),
    KnownDifference(
        path=f"{_HEAD}.CatEmbHead.plot_embeds",
        old="saves the pictures of all features under the same name, so that the last one survives",
        ours="appends the name of the feature",
        why="one wants to see all of them",
        test=f"{_CAT}::test_every_embedding_gets_a_picture_of_its_own",
    ),
    KnownDifference(
        path=f"{_HEAD}.MultiHead",
        old="raises AttributeError for a matrix head that is no partial, and gives all arguments to both heads",
        ours="takes a class with `vecs` and `feats_per_vec` beside it; each head gets the arguments that it has",
        why="the two heads have different arguments",
        test=f"{_MULTI}::test_each_head_gets_the_arguments_that_it_has",
    ),
]

SEQUENCES = [
    KnownDifference(
        path=f"{_HEAD}.RecurrentHead",
        old="reads the backward direction after it has seen the last object only",
        ours="reads it after it has seen all; `legacy_last_step=True` reads old weights as they were trained",
        why="otherwise half of the output knows one object",
        test=f"{_RECURRENT}::test_the_backward_direction_sees_all_objects_unlike_in_the_older_package",
    ),
    KnownDifference(
        path=f"{_HEAD}.RecurrentHead",
        old="cannot be built with `stateful=True`: TypeError",
        ours="returns the hidden state after every object, (batch, objects, features)",
        why="that is what is documented",
        test=f"{_RECURRENT}::test_stateful_gives_the_state_after_every_object",
    ),
    KnownDifference(
        path=f"{_HEAD}.AbsConv1dHead",
        old="fails on networks whose output is not contiguous, and on those that do not take `in_c`",
        ours="takes both, and networks returned with their size",
        why="the documentation's examples swallow `in_c`",
        test=f"{_CONV}::test_every_documented_way_to_write_a_network_works",
    ),
]

BOOSTS = [
    KnownDifference(
        path=f"{_HEAD}.LorentzBoostNet",
        old="NaN for events of zeros and massless frames, values up to 1e12",
        ours="finite value and gradient for every input; boosts that keep masses there, too",
        why="padding and neutrinos exist",
        test=f"{_LORENTZ}::test_value_and_gradient_are_finite_at_the_edges",
    ),
    KnownDifference(
        path="diffdet.kernels.lorentz.boost",
        old="forms 1 - beta^2: 13 % error in float32 for frames of 200 GeV with a mass of 0.1 GeV; adds 1e-10 here and "
        "there",
        ours="works with the four-velocity p / m; by default in float64 inside the heads",
        why="fast frames are what jets have; physical, massive frames give the same to 1e-9",
        test=f"{_LORENTZ}::test_float64_inside_makes_float32_as_good_as_its_input",
    ),
    KnownDifference(
        path="diffdet.kernels.lorentz.pair_cosines",
        old="0 / 0 = NaN for momenta that vanish",
        ours="0 with finite gradient; momenta below a few 1e-4 of the energy count for less",
        why="particles in their own rest frame have no direction",
        test=f"{_BOOST}::test_cosines_of_perpendicular_parallel_and_vanishing_momenta",
    ),
    KnownDifference(
        path=f"{_HEAD}.LorentzBoostNet.feat_extractor",
        old="crashes in the batch norm if the extractor returns (batch, particle, 1), as the documentation's does",
        ours="flattens what the extractor returns",
        why="the example should run",
        test=f"{_LORENTZ}::test_a_function_of_the_users_own_takes_the_place_of_the_extractor",
    ),
    KnownDifference(
        path=f"{_HEAD}.LorentzBoostNet",
        old="takes components in any order",
        ours="refuses px, py, pz and E in another order; `check_input=True` refuses E < |p|, by name",
        why="a boost of shuffled components is nonsense that trains",
        test=f"{_LORENTZ}::test_unphysical_objects_are_refused_by_name_when_asked_for",
    ),
    KnownDifference(
        path=f"{_HEAD}.AutoExtractLorentzBoostNet",
        old="leaves its networks and its batch norm trainable with `freeze=True`",
        ours="freezes everything",
        why="a frozen head should not change",
        test=f"{_LORENTZ}::test_freezing_freezes_the_networks_too",
    ),
    KnownDifference(
        path=f"{_HEAD}.AutoExtractLorentzBoostNet",
        old="fails in torch.cat with no feature asked for, and crashes with `bn=True` in the documented version",
        ours="refuses the first with a message, and trains with the second",
        why="batch norms over particles are documented",
        test=f"{_LORENTZ}::test_batch_norm_runs_in_training",
    ),
]

GRAPHS = [
    KnownDifference(
        path=f"{_HEAD}.GNNHead",
        old="raises AttributeError for an extractor or collapser that is no partial",
        ours="takes classes, too, and refuses what makes something else",
        why="not everything needs settings",
        test=f"{_GNN}::test_classes_will_do_where_nothing_else_is_to_be_set",
    ),
    KnownDifference(
        path=f"{_GRAPH}.GravNetLayer",
        old="sorts all distances and spreads messages over (batch, V, V, features)",
        ours="takes the k nearest and gathers (batch, V, k, features)",
        why="the same numbers in a fraction of time and memory",
        test=f"{_GNN}::test_grav_net_layer_equals_a_loop",
    ),
    KnownDifference(
        path=f"{_GRAPH}.GravNetLayer",
        old="attention among fewer than four message features has queries of width 0, and does nothing",
        ours="queries are at least 1 wide; `sa_width` sets them",
        why="attention that was asked for should attend",
        test=f"{_GNN}::test_attention_has_queries_of_some_width",
    ),
    KnownDifference(
        path=f"{_GRAPH}.NodePredictor.get_out_size",
        old="gives the number of all predictions of an event",
        ours="gives the shape of the output without the batch axis",
        why="predictions are not flattened",
        test=f"{_GNN}::test_node_predictor_predicts_for_every_object",
    ),
]

KNOWN_DIFFERENCES = [*OBJECTS, *FLAT, *SEQUENCES, *BOOSTS, *GRAPHS]
