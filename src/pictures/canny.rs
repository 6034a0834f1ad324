//! Edges of a picture by Canny's method (IEEE PAMI 8, 1986) as OpenCV computes it, because
//! ControlNets for edges were trained on OpenCV's edges: no blur, Sobel 3×3, the sum of absolute
//! gradients, and the gradient of the colour channel where it is steepest. Every pixel equals
//! `cv2.Canny(rgb, low, high)`.

use image::{Rgb, RgbImage};

/// tan 22.5° in fixed point with 15 fractional bits.
const TAN_22: i32 = 13573;

/// The gradient at one pixel, and its steepness.
#[derive(Clone, Copy)]
struct Slope {
    x: i32,
    y: i32,
    /// |x| + |y|, from 0 to 2040.
    steepness: i32,
}

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    None,
    /// An edge if it touches another edge.
    Weak,
    Edge,
}

/// White lines on black. A line starts where the gradient is steeper than `high` and continues
/// where it is steeper than `low`. Usual values are 100 and 200; gradients go up to 2040. The order
/// of the two values does not matter.
pub fn canny(picture: &RgbImage, low: f64, high: f64) -> RgbImage {
    let (width, height) = picture.dimensions();
    let [low, high] = [low.min(high), low.max(high)].map(|threshold| threshold.floor() as i32);
    let slopes: Vec<Slope> = (0..height as i32)
        .flat_map(|y| (0..width as i32).map(move |x| slope(picture, x, y)))
        .collect();
    let at = |x: i32, y: i32| -> Option<usize> {
        let inside = (0..width as i32).contains(&x) && (0..height as i32).contains(&y);
        inside.then(|| y as usize * width as usize + x as usize)
    };
    // Outside the picture the gradient is zero.
    let steepness = |x: i32, y: i32| at(x, y).map_or(0, |i| slopes[i].steepness);

    let mut marks = vec![Mark::None; slopes.len()];
    let mut edges = Vec::new();
    for y in 0..height as i32 {
        for x in 0..width as i32 {
            let i = y as usize * width as usize + x as usize;
            let own = slopes[i];
            if own.steepness > low && is_ridge(own, x, y, steepness) {
                marks[i] = Mark::Weak;
                if own.steepness > high {
                    marks[i] = Mark::Edge;
                    edges.push((x, y));
                }
            }
        }
    }
    while let Some((x, y)) = edges.pop() {
        for (dx, dy) in (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dx, dy))) {
            if let Some(i) = at(x + dx, y + dy)
                && marks[i] == Mark::Weak
            {
                marks[i] = Mark::Edge;
                edges.push((x + dx, y + dy));
            }
        }
    }
    RgbImage::from_fn(width, height, |x, y| {
        match marks[y as usize * width as usize + x as usize] {
            Mark::Edge => Rgb([255; 3]),
            _ => Rgb([0; 3]),
        }
    })
}

/// Sobel's gradient at a pixel, of the colour channel where it is steepest; border pixels are
/// repeated.
fn slope(picture: &RgbImage, x: i32, y: i32) -> Slope {
    let (width, height) = picture.dimensions();
    let pixel = |dx: i32, dy: i32| {
        let x = (x + dx).clamp(0, width as i32 - 1);
        let y = (y + dy).clamp(0, height as i32 - 1);
        picture.get_pixel(x as u32, y as u32).0.map(i32::from)
    };
    let near = [-1, 0, 1].map(|dy| [-1, 0, 1].map(|dx| pixel(dx, dy)));
    let colours: [Slope; 3] = std::array::from_fn(|c| {
        let level = |row: usize, column: usize| near[row][column][c];
        let x = level(0, 2) + 2 * level(1, 2) + level(2, 2)
            - (level(0, 0) + 2 * level(1, 0) + level(2, 0));
        let y = level(2, 0) + 2 * level(2, 1) + level(2, 2)
            - (level(0, 0) + 2 * level(0, 1) + level(0, 2));
        let steepness = x.abs() + y.abs();
        Slope { x, y, steepness }
    });
    let [first, rest @ ..] = colours;
    let steeper = |a: Slope, b: Slope| if b.steepness > a.steepness { b } else { a };
    rest.into_iter().fold(first, steeper)
}

/// Whether a pixel is steeper than its two neighbours across the edge. Of two equally steep pixels
/// one counts: in the two straight directions the first.
fn is_ridge(own: Slope, x: i32, y: i32, steepness: impl Fn(i32, i32) -> i32) -> bool {
    let across = own.x.abs() * TAN_22;
    let up = own.y.abs() << 15;
    if up < across {
        own.steepness > steepness(x - 1, y) && own.steepness >= steepness(x + 1, y)
    } else if up > across + (own.x.abs() << 16) {
        own.steepness > steepness(x, y - 1) && own.steepness >= steepness(x, y + 1)
    } else {
        let side = if (own.x ^ own.y) < 0 { -1 } else { 1 };
        own.steepness > steepness(x - side, y - 1) && own.steepness > steepness(x + side, y + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_one_line_and_a_plain_picture_none() {
        let step = RgbImage::from_fn(8, 6, |x, _| Rgb([if x < 4 { 0 } else { 200 }; 3]));
        let edges = canny(&step, 100.0, 200.0);
        for (x, _, pixel) in edges.enumerate_pixels() {
            assert_eq!(pixel.0, [if x == 3 { 255 } else { 0 }; 3], "at {x}");
        }
        let plain = RgbImage::from_pixel(8, 6, Rgb([77; 3]));
        assert!(canny(&plain, 0.0, 0.0).iter().all(|level| *level == 0));
    }
}
