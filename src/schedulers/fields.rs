//! How each sampler treats the parameters of its class in diffusers.

use crate::io::config_file::{Class, Field, Fields};

use Field::{Harmless, Only, Read, ReadAsFlag};

/// The forward process: the same parameters in all classes.
const SCHEDULE: &Fields = &[
    ("num_train_timesteps", Read),
    ("beta_start", Read),
    ("beta_end", Read),
    ("beta_schedule", Read),
    ("trained_betas", Only(&["null"])),
    ("prediction_type", Read),
];

/// Changes the schedule so that its last ᾱ is 0, which is not supported.
const ZERO_SNR: &Fields = &[("rescale_betas_zero_snr", Only(&["false", "null"]))];

/// How the steps are spread: the same parameters in all four classes.
const STEPS: &Fields = &[("timestep_spacing", Read), ("steps_offset", Read)];

/// Parameters that choose the sigmas.
const SIGMAS: &Fields = &[
    ("use_karras_sigmas", Read),
    ("use_exponential_sigmas", Only(&["false", "null"])),
    ("use_beta_sigmas", Only(&["false", "null"])),
    ("final_sigmas_type", Read),
];

/// Limits of z_0, which are for pixels and not for latents.
const THRESHOLDING: &Fields = &[
    ("thresholding", Only(&["false", "null"])),
    (
        "dynamic_thresholding_ratio",
        Harmless("only with thresholding"),
    ),
    ("sample_max_value", Harmless("only with thresholding")),
];

/// `EulerDiscreteScheduler`.
pub(super) const EULER_DISCRETE: Class = Class {
    name: "EulerDiscreteScheduler",
    fields: &[
        SCHEDULE,
        ZERO_SNR,
        STEPS,
        SIGMAS,
        &[
            ("interpolation_type", Only(&["\"linear\""])),
            ("sigma_min", Only(&["null"])),
            ("sigma_max", Only(&["null"])),
            ("timestep_type", Only(&["\"discrete\""])),
        ],
    ],
    besides: &[],
};

/// `DPMSolverMultistepScheduler`. As in diffusers, the algorithms and solvers of related classes
/// are read as its own.
pub(super) const DPM_SOLVER_MULTISTEP: Class = Class {
    name: "DPMSolverMultistepScheduler",
    fields: &[
        SCHEDULE,
        ZERO_SNR,
        STEPS,
        SIGMAS,
        THRESHOLDING,
        &[
            ("solver_order", Only(&["2"])),
            ("algorithm_type", Only(&["\"dpmsolver++\"", "\"deis\""])),
            (
                "solver_type",
                Only(&["\"midpoint\"", "\"logrho\"", "\"bh1\"", "\"bh2\""]),
            ),
            ("lower_order_final", ReadAsFlag),
            ("euler_at_final", ReadAsFlag),
            ("use_lu_lambdas", Only(&["false", "null"])),
            ("use_flow_sigmas", Only(&["false", "null"])),
            ("flow_shift", Harmless("only with use_flow_sigmas")),
            ("lambda_min_clipped", Only(&["\"-Infinity\""])),
            (
                "variance_type",
                Only(&[
                    "null",
                    "\"fixed_small\"",
                    "\"fixed_small_log\"",
                    "\"fixed_large\"",
                    "\"fixed_large_log\"",
                ]),
            ),
            ("use_dynamic_shifting", Only(&["false", "null"])),
            (
                "time_shift_type",
                Harmless("only with use_dynamic_shifting"),
            ),
        ],
    ],
    besides: &[],
};

/// `DDIMScheduler`.
pub(super) const DDIM: Class = Class {
    name: "DDIMScheduler",
    fields: &[
        SCHEDULE,
        ZERO_SNR,
        STEPS,
        THRESHOLDING,
        &[
            ("clip_sample", ReadAsFlag),
            ("clip_sample_range", Harmless("nothing is clipped")),
            ("set_alpha_to_one", ReadAsFlag),
        ],
    ],
    besides: &[],
};

/// `PNDMScheduler`.
pub(super) const PNDM: Class = Class {
    name: "PNDMScheduler",
    fields: &[
        SCHEDULE,
        STEPS,
        &[
            ("skip_prk_steps", ReadAsFlag),
            ("set_alpha_to_one", ReadAsFlag),
        ],
    ],
    // diffusers' PNDM ignores this field, and then samples on a different schedule from the
    // training one.
    besides: &[ZERO_SNR],
};

/// The fields of the forward process alone, for a file of any class.
pub(super) const NOISE_SCHEDULE: Class = Class {
    name: "the noise schedule",
    fields: &[SCHEDULE, ZERO_SNR],
    besides: &[],
};

/// All parameters of all samplers in diffusers. A file may have been written for one class and be
/// read for another; like `from_config`, the reader then ignores the parameters that are not the
/// class's own.
pub const OTHERS: [&str; 104] = [
    "algorithm_type",
    "alpha_cum_end",
    "alpha_cum_start",
    "base_image_seq_len",
    "base_shift",
    "beta_end",
    "beta_schedule",
    "beta_start",
    "block_length",
    "clip_denoised",
    "clip_sample",
    "clip_sample_range",
    "correct_steps",
    "corrector_k",
    "corrector_order",
    "corrector_selection",
    "corrector_selection_tau",
    "corrector_steps",
    "disable_corrector",
    "dynamic_thresholding_ratio",
    "editing_threshold",
    "entropy_bound",
    "eps",
    "eta",
    "euler_at_final",
    "final_sigmas_type",
    "final_step_size_scale",
    "flow_shift",
    "gamma",
    "gamma_cum_end",
    "gamma_cum_start",
    "interpolation_type",
    "invert_sigmas",
    "lambda_min_clipped",
    "lower_order_final",
    "mask_token_id",
    "masking_schedule",
    "max_image_seq_len",
    "max_shift",
    "minimal_topk",
    "n_grid",
    "noise_mode",
    "num_inference_steps",
    "num_policy_substeps",
    "num_train_timesteps",
    "num_vec_classes",
    "original_inference_steps",
    "predict_x0",
    "prediction_type",
    "predictor_order",
    "rescale_betas_zero_snr",
    "rho",
    "s",
    "s_churn",
    "s_max",
    "s_min",
    "s_noise",
    "sample_max_value",
    "sampling_eps",
    "scale_factors",
    "scaler",
    "schedule_mode",
    "scheduler_type",
    "set_alpha_to_one",
    "shift",
    "shift_terminal",
    "sigma_data",
    "sigma_max",
    "sigma_min",
    "sigma_schedule",
    "skip_prk_steps",
    "snr",
    "snr_shift_scale",
    "solver_order",
    "solver_p",
    "solver_type",
    "stage_range",
    "stages",
    "steps_offset",
    "stochastic_sampling",
    "t_lim_ode",
    "t_lim_ode_below",
    "t_max",
    "t_min",
    "tail_step_multiplier",
    "tail_steps",
    "tau_func",
    "threshold",
    "thresholding",
    "time_shift_type",
    "timestep_scaling",
    "timestep_spacing",
    "timestep_type",
    "trained_betas",
    "tsr_k",
    "tsr_sigma",
    "upscale_mode",
    "use_beta_sigmas",
    "use_dynamic_shifting",
    "use_exponential_sigmas",
    "use_flow_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
    "variance_type",
];
