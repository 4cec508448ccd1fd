"""Which cells of the table are refused, and in which words."""

COUPLED = (
    "expected a log density of each datum that depends on no other, got .* beside other data and .* alone"
)
CHANGES = (
    "expected one density at given latents, got another one at each run .*: put the modules in evaluation"
)
OUTSIDE = (
    "expected every site inside a pyro.plate of the size of x, here .*; a latent that all data share has no"
)
SEQUENTIAL = "got the site 'z_0' inside the sequential plate 'data': open it once, as with pyro.plate"
SITES = r"expected the guide to sample the model's latent sites \[.*\] and no others, got \[.*\]"
POINT = "expected a guide with a density at the site 'z', got a Delta: its one point has no weight"
SUBSAMPLED = "expected plates without subsampling, got 2 of .* in the plate 'data'"
ARGUMENTS = "the guide takes .*, got x alone: missing a required argument: 'y'; .* as given={'y': y}"
RAISES = "cannot be evaluated on these data: .*refused.py, line"
RAISES_ELSEWHERE = "cannot be evaluated on these data: NotImplementedError"
MASKED = (
    "expected latent sites without a mask, got one at the site '.*': where it is masked it has no density"
)
UNMARKED = "expected continuous latent sites, got the discrete site '.*': mark it by infer="
ONLY_SUMS = "expected a continuous latent site, got only .* summed out: use log_evidence and elbo"
NO_LATENT = "expected a model with a latent site, got none: log p.x. is its log density"
ANGLE = "expected latent sites over the reals or a part of them, got an angle"
ITS_ARGUMENT = "expected densities that do not depend on the model's argument, got one at the site"
NOT_X = "expected a model that observes its argument as it is, got one that"
OWN_DATA = (
    "expected a guide that can be run on any data, to run it on simulated ones, got one for these very data"
)
OWN_DRAWS = "expected a guide whose density at given latents is known, for all but log_evidence and annealing"
MANY_DATA = "cannot be evaluated on these data: (Shape mismatch inside plate|The size of tensor a)"

UNREGISTERED = "parameters get a gradient but are not being optimised: .*; name them by pyro.module"

EVERYWHERE = ("elbo", "log_evidence", "annealed", "diagnose", "calibrate")
AFTER = EVERYWHERE[2:]

#: By program and column.
REFUSED: dict[str, dict[str, str]] = {
    "lstm_decoder_time_first": {"fit": UNREGISTERED},
    "sequential_data_plate": dict.fromkeys(EVERYWHERE, SEQUENTIAL),
    "centred_in_the_event": dict.fromkeys(EVERYWHERE, COUPLED),
    "lengths_masked": {"diagnose": MASKED, "calibrate": MASKED},
    "longest_in_batch": {"diagnose": MASKED, "calibrate": MASKED},
    "autoregressive_likelihood": {"calibrate": ITS_ARGUMENT},
    "one_shot_shifted": {"calibrate": ITS_ARGUMENT},
    "masked_latent": {"diagnose": MASKED, "calibrate": MASKED},
    "prediction_masked_off": {"diagnose": MASKED, "calibrate": MASKED},
    "likelihood_by_factor": {"calibrate": NOT_X},
    "gmm_enumerated": {"diagnose": ONLY_SUMS, "calibrate": ONLY_SUMS},
    "hidden_markov_model": {"diagnose": ONLY_SUMS, "calibrate": ONLY_SUMS},
    "drawn_categorical": dict.fromkeys(AFTER, UNMARKED),
    "drawn_bernoulli_and_normal": dict.fromkeys(AFTER, UNMARKED),
    "classifier_in_the_guide": {"diagnose": ONLY_SUMS, "calibrate": ONLY_SUMS},
    "sequential_enumeration": {"diagnose": ONLY_SUMS, "calibrate": ONLY_SUMS},
    "von_mises_angle": dict.fromkeys(AFTER, ANGLE),
    "no_latents_gaussian_hmm": dict.fromkeys(AFTER, NO_LATENT),
    "local_parameters": {"diagnose": MANY_DATA, "calibrate": OWN_DATA},
    "auto_normal": {"diagnose": MANY_DATA, "calibrate": OWN_DATA},
    "auto_diagonal_normal": {
        "elbo": OUTSIDE,
        "log_evidence": OUTSIDE,
        "annealed": OUTSIDE,
        "diagnose": MANY_DATA,
        "calibrate": OUTSIDE,
    },
    "auto_guide_list": {"diagnose": MANY_DATA, "calibrate": OWN_DATA},
    "autoregressive_flow_guide": {"diagnose": OWN_DRAWS},
    "zuko_flow_guide": {"diagnose": RAISES_ELSEWHERE},
    "auxiliary_base_noise": {"diagnose": OWN_DRAWS},
    "batchnorm_in_train_mode": dict.fromkeys(EVERYWHERE, COUPLED),
    "batchnorm_train_in_guide": dict.fromkeys(EVERYWHERE, COUPLED),
    "codes_centred": dict.fromkeys(EVERYWHERE, COUPLED),
    "data_centred": dict.fromkeys(EVERYWHERE, COUPLED),
    "bayesian_regression": dict.fromkeys(EVERYWHERE, OUTSIDE),
    "global_scale_and_local_codes": dict.fromkeys(EVERYWHERE, OUTSIDE),
    "attention_over_the_batch": dict.fromkeys(EVERYWHERE, COUPLED),
    "first_datum_for_all": dict.fromkeys(EVERYWHERE, COUPLED),
    "neighbours_rolled": dict.fromkeys(EVERYWHERE, COUPLED),
    "dropout_in_train_mode": dict.fromkeys(EVERYWHERE, CHANGES),
    "dequantised_inside": dict.fromkeys(EVERYWHERE, CHANGES),
    "noise_by_number_of_data": dict.fromkeys(EVERYWHERE, COUPLED),
    "guide_misses_a_site": dict.fromkeys(EVERYWHERE, SITES),
    "guide_has_a_site_too_many": dict.fromkeys(EVERYWHERE, SITES),
    "point_mass_guide": {"log_evidence": POINT, "annealed": POINT, "diagnose": POINT, "calibrate": POINT},
    "random_minibatch_inside": dict.fromkeys(EVERYWHERE, SUBSAMPLED),
    "total_observed": dict.fromkeys(EVERYWHERE, OUTSIDE),
    "recurrent_over_the_batch": dict.fromkeys(EVERYWHERE, COUPLED),
    "normalised_by_largest": dict.fromkeys(EVERYWHERE, COUPLED),
    "raises_index_error": dict.fromkeys(EVERYWHERE, RAISES),
    "raises_assertion_error": dict.fromkeys(EVERYWHERE, RAISES),
    "raises_type_error": dict.fromkeys(EVERYWHERE, ARGUMENTS),
    "raises_key_error": dict.fromkeys(EVERYWHERE, RAISES),
    "raises_attribute_error": dict.fromkeys(EVERYWHERE, RAISES),
    "raises_zero_division": dict.fromkeys(EVERYWHERE, RAISES),
    "raises_runtime_error": dict.fromkeys(EVERYWHERE, RAISES),
    "raises_value_error": dict.fromkeys(EVERYWHERE, RAISES),
    "raises_its_own_exception": dict.fromkeys(EVERYWHERE, RAISES),
}

#: Of `CENTRAL` those that plain SVI does not train: it refuses them, or they have no parameters.
UNTRAINED = (
    *("random_walk_cumsum", "bmm_design", "groups_within_data", "no_plate_at_all", "state_space_loop"),
    *("longest_in_batch", "nan_left_in_place", "drawn_categorical", "gamma_poisson"),
    *("batchnorm_in_train_mode", "codes_centred", "bayesian_regression", "raises_type_error"),
)

#: Of `CENTRAL` those that `fit` does not train, or not so: it gives only x to programs, and puts modules in
#: train mode.
UNFITTED = (
    *UNTRAINED,
    *("conditional_cat", "label_embedding", "lengths_masked", "images_and_labels", "many_keyword_inputs"),
    *("batchnorm_eval", "transformer_over_time"),
)

#: Those for which all columns are tested.
CENTRAL = (
    *("tutorial_vae", "single_column_index", "random_walk_cumsum", "view_as_table", "conv1d_over_codes"),
    *("dcgan_shapes", "squeeze_all", "bmm_design", "einsum_loadings", "column_vectors", "asserting_shapes"),
    *("conditional_cat", "label_embedding", "batchnorm_eval", "softmax_axis1", "gru_decoder_batch_first"),
    *("lstm_decoder_time_first", "transformer_over_time", "plate_named_batch", "plate_without_size"),
    *("annealing_factor", "pixels_plate_left", "groups_within_data", "data_plate_among_equals"),
    *("no_plate_at_all", "batch_in_the_event", "state_space_loop", "lengths_masked", "longest_in_batch"),
    *("nan_left_in_place", "partly_observed_by_obs_mask", "halves", "images_and_labels"),
    *("many_keyword_inputs", "mixture_of_codes", "ss_vae_unlabelled", "hidden_markov_model"),
    *("outlier_pixels", "drawn_categorical", "gamma_poisson", "dirichlet_counts", "top_down_hierarchy"),
    *(
        "uniform_latent",
        "single_precision",
        "auto_normal",
        "autoregressive_flow_guide",
        "coupling_flow_prior",
    ),
    *("pyro_module_programs", "decentred_by_reparam", "likelihood_by_factor"),
    *("batchnorm_in_train_mode", "codes_centred", "bayesian_regression", "raises_type_error"),
)
