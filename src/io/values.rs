//! The values of a tensor: their bytes, and whether they are finite.

use anyhow::Result;
use tch::{Device, Tensor};

/// All values in order, as bytes on the host.
///
/// # Errors
/// When libtorch cannot copy them.
pub fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let values = tensor.to_device(Device::Cpu).contiguous();
    let mut bytes = vec![0; values.numel() * values.kind().elt_size_in_bytes()];
    values.f_copy_data_u8(&mut bytes, values.numel())?;
    Ok(bytes)
}

/// Whether every value is finite.
pub fn is_finite(tensor: &Tensor) -> bool {
    are_finite(std::slice::from_ref(tensor))
}

/// Whether every value of all tensors is finite; waits for a GPU once.
pub fn are_finite(tensors: &[Tensor]) -> bool {
    let finite: Vec<Tensor> = tensors.iter().map(|t| t.isfinite().all()).collect();
    finite.is_empty() || Tensor::stack(&finite, 0).all().int64_value(&[]) == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_in_the_order_of_the_values() -> Result<()> {
        let turned = Tensor::from_slice(&[1i16, 2, 3, 256]).view([2, 2]).tr();
        assert_eq!(bytes(&turned)?, [1, 0, 3, 0, 2, 0, 0, 1]);
        Ok(())
    }

    #[test]
    fn one_value_that_is_no_number_is_enough() {
        let numbers = || Tensor::from_slice(&[0.0, -1.0, f64::MAX]);
        assert!(are_finite(&[]) && are_finite(&[numbers(), numbers()]));
        for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(!are_finite(&[numbers(), Tensor::from_slice(&[1.0, wrong])]));
        }
    }
}
