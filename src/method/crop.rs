//! The target's crop: a part of the picture, enlarged to the full size. It is a third variant of the target,
//! besides the plain and the flipped one (Sec. 3.2).

use tch::Tensor;

/// A part of a picture in pixels: left, top, width, height.
pub type CropBox = [i64; 4];

/// The box, extended around its middle to the proportions of a picture of `width` x `height` pixels, and moved
/// inside the picture. The enlarged part is then not distorted, and contains the whole box.
pub fn with_proportions(part: CropBox, width: i64, height: i64) -> CropBox {
    let [x, y, w, h] = part;
    let (w, h) = (
        w.max((h * width + height / 2) / height).min(width),
        h.max((w * height + width / 2) / width).min(height),
    );
    let side =
        |start: i64, old: i64, new: i64, most: i64| (start - (new - old) / 2).clamp(0, most - new);
    [
        side(x, part[2], w, width),
        side(y, part[3], h, height),
        w,
        h,
    ]
}

/// Cuts the box out of a picture `[1, 3, H, W]` in [0, 1] and enlarges it to `[1, 3, H, W]` by bicubic interpolation.
pub fn enlarged(picture: &Tensor, part: CropBox) -> Tensor {
    let [x, y, w, h] = part;
    let (height, width) = (picture.size()[2], picture.size()[3]);
    picture
        .narrow(2, y, h)
        .narrow(3, x, w)
        .upsample_bicubic2d([height, width], false, None, None)
        .clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libtorch::seeded;
    use tch::{Device, Kind};

    #[test]
    fn a_box_grows_to_the_proportions_and_stays_inside() {
        assert_eq!(with_proportions([10, 20, 16, 16], 64, 64), [10, 20, 16, 16]);
        assert_eq!(with_proportions([10, 20, 8, 16], 64, 64), [6, 20, 16, 16]);
        assert_eq!(with_proportions([0, 20, 8, 16], 64, 64), [0, 20, 16, 16]);
        assert_eq!(with_proportions([56, 0, 8, 16], 64, 64), [48, 0, 16, 16]);
        assert_eq!(with_proportions([10, 20, 16, 16], 96, 64), [6, 20, 24, 16]);
        assert_eq!(with_proportions([0, 30, 64, 4], 64, 64), [0, 0, 64, 64]);
        assert_eq!(with_proportions([0, 0, 64, 96], 64, 96), [0, 0, 64, 96]);
    }

    #[test]
    fn the_whole_picture_stays_as_it_is_and_a_part_fills_it() {
        let _drawing = seeded(2);
        let picture = Tensor::rand([1, 3, 8, 8], (Kind::Float, Device::Cpu));
        let same = enlarged(&picture, [0, 0, 8, 8]);
        assert!((same - &picture).abs().max().double_value(&[]) < 1e-6);
        let half = Tensor::zeros([1, 3, 8, 8], (Kind::Float, Device::Cpu));
        let _ = half.narrow(3, 4, 4).fill_(0.75);
        let part = enlarged(&half, [4, 2, 4, 4]);
        assert_eq!(part.size(), [1, 3, 8, 8]);
        assert!((part - 0.75).abs().max().double_value(&[]) < 1e-6);
    }
}
