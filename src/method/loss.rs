//! The three losses of tuning. Rows of a batch: the target, K auxiliary samples, the average.

use tch::{Kind, Tensor};

/// λ1 and λ2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossWeights {
    /// λ1, weight of the auxiliary loss.
    pub lambda_1: f64,
    /// λ2, weight of the average loss.
    pub lambda_2: f64,
}

/// `‖ε - ε_θ(z_t, t, c)‖²`, averaged over each row: from two tensors `[R, C, H, W]` to `[R]`, in f32. All three
/// losses are computed from it.
pub fn row_errors(noise_pred: &Tensor, target: &Tensor) -> Tensor {
    (noise_pred - target)
        .square()
        .mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float)
}

/// L_tar, Eq. (10): the error of the target with its own offset.
pub fn target_loss(row_errors: &Tensor) -> Tensor {
    row_errors.get(0)
}

/// L_aux, Eq. (11): the mean error of K auxiliary samples, each with its own offset.
pub fn auxiliary_loss(row_errors: &Tensor) -> Tensor {
    row_errors
        .narrow(0, 1, row_errors.size()[0] - 2)
        .mean(Kind::Float)
}

/// L_aver, Eq. (13): the error of a random sample of the batch with the mean of the auxiliary offsets.
pub fn average_loss(row_errors: &Tensor) -> Tensor {
    row_errors.get(row_errors.size()[0] - 1)
}

/// L, Eq. (14).
pub fn total_loss(row_errors: &Tensor, weights: LossWeights) -> Tensor {
    target_loss(row_errors)
        + auxiliary_loss(row_errors) * weights.lambda_1
        + average_loss(row_errors) * weights.lambda_2
}

/// The weights of the rows' errors in Eq. (14), `[K + 2]`. The weighted sum of the errors is [`total_loss`], so
/// that a batch can pass through the U-Net in parts.
pub fn row_weights(num_auxiliary: usize, weights: LossWeights) -> Vec<f32> {
    let auxiliary = (weights.lambda_1 / num_auxiliary as f64) as f32;
    let mut rows = vec![1.0];
    rows.extend(vec![auxiliary; num_auxiliary]);
    rows.push(weights.lambda_2 as f32);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_weights_add_up_to_the_total_loss() {
        let weights = LossWeights {
            lambda_1: 0.5,
            lambda_2: 0.2,
        };
        let errors = Tensor::from_slice(&[1.0f32, 2.0, 4.0, 6.0, 10.0]);
        // By hand: 1 + 0.5 (2 + 4 + 6) / 3 + 0.2 · 10 = 5.
        let total = total_loss(&errors, weights).double_value(&[]);
        let summed = (errors * Tensor::from_slice(&row_weights(3, weights)))
            .sum(Kind::Float)
            .double_value(&[]);
        assert!((total - 5.0).abs() < 1e-6, "{total}");
        assert!((summed - 5.0).abs() < 1e-6, "{summed}");
    }
}
