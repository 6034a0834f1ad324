//! A font of 5 × 7 dots for the numbers and row labels of contact sheets.

use image::{Rgb, RgbImage};

/// Width and height of a glyph in dots.
pub const GLYPH: (u32, u32) = (5, 7);

/// Dots from the left edge of one glyph to the left edge of the next.
const ADVANCE: u32 = GLYPH.0 + 1;

/// Rows from top to bottom; the leftmost dot is the highest of five bits.
#[rustfmt::skip]
const GLYPHS: [(char, [u8; 7]); 39] = [
    ('0', [0o16, 0o21, 0o23, 0o25, 0o31, 0o21, 0o16]),
    ('1', [0o04, 0o14, 0o04, 0o04, 0o04, 0o04, 0o16]),
    ('2', [0o16, 0o21, 0o01, 0o02, 0o04, 0o10, 0o37]),
    ('3', [0o16, 0o21, 0o01, 0o06, 0o01, 0o21, 0o16]),
    ('4', [0o02, 0o06, 0o12, 0o22, 0o37, 0o02, 0o02]),
    ('5', [0o37, 0o20, 0o36, 0o01, 0o01, 0o21, 0o16]),
    ('6', [0o16, 0o20, 0o20, 0o36, 0o21, 0o21, 0o16]),
    ('7', [0o37, 0o01, 0o02, 0o02, 0o04, 0o04, 0o04]),
    ('8', [0o16, 0o21, 0o21, 0o16, 0o21, 0o21, 0o16]),
    ('9', [0o16, 0o21, 0o21, 0o17, 0o01, 0o01, 0o16]),
    ('A', [0o16, 0o21, 0o21, 0o37, 0o21, 0o21, 0o21]),
    ('B', [0o36, 0o21, 0o21, 0o36, 0o21, 0o21, 0o36]),
    ('C', [0o16, 0o21, 0o20, 0o20, 0o20, 0o21, 0o16]),
    ('D', [0o36, 0o21, 0o21, 0o21, 0o21, 0o21, 0o36]),
    ('E', [0o37, 0o20, 0o20, 0o36, 0o20, 0o20, 0o37]),
    ('F', [0o37, 0o20, 0o20, 0o36, 0o20, 0o20, 0o20]),
    ('G', [0o16, 0o21, 0o20, 0o27, 0o21, 0o21, 0o17]),
    ('H', [0o21, 0o21, 0o21, 0o37, 0o21, 0o21, 0o21]),
    ('I', [0o16, 0o04, 0o04, 0o04, 0o04, 0o04, 0o16]),
    ('J', [0o07, 0o02, 0o02, 0o02, 0o02, 0o22, 0o14]),
    ('K', [0o21, 0o22, 0o24, 0o30, 0o24, 0o22, 0o21]),
    ('L', [0o20, 0o20, 0o20, 0o20, 0o20, 0o20, 0o37]),
    ('M', [0o21, 0o33, 0o25, 0o25, 0o21, 0o21, 0o21]),
    ('N', [0o21, 0o31, 0o31, 0o25, 0o23, 0o23, 0o21]),
    ('O', [0o16, 0o21, 0o21, 0o21, 0o21, 0o21, 0o16]),
    ('P', [0o36, 0o21, 0o21, 0o36, 0o20, 0o20, 0o20]),
    ('Q', [0o16, 0o21, 0o21, 0o21, 0o25, 0o22, 0o15]),
    ('R', [0o36, 0o21, 0o21, 0o36, 0o24, 0o22, 0o21]),
    ('S', [0o17, 0o20, 0o20, 0o16, 0o01, 0o01, 0o36]),
    ('T', [0o37, 0o04, 0o04, 0o04, 0o04, 0o04, 0o04]),
    ('U', [0o21, 0o21, 0o21, 0o21, 0o21, 0o21, 0o16]),
    ('V', [0o21, 0o21, 0o21, 0o21, 0o21, 0o12, 0o04]),
    ('W', [0o21, 0o21, 0o21, 0o25, 0o25, 0o25, 0o12]),
    ('X', [0o21, 0o21, 0o12, 0o04, 0o12, 0o21, 0o21]),
    ('Y', [0o21, 0o21, 0o12, 0o04, 0o04, 0o04, 0o04]),
    ('Z', [0o37, 0o01, 0o02, 0o04, 0o10, 0o20, 0o37]),
    ('-', [0o00, 0o00, 0o00, 0o16, 0o00, 0o00, 0o00]),
    ('.', [0o00, 0o00, 0o00, 0o00, 0o00, 0o06, 0o06]),
    ('=', [0o00, 0o00, 0o37, 0o00, 0o37, 0o00, 0o00]),
];

/// Width of `text` in pixels if a dot is `dot` pixels wide.
pub fn text_width(text: &str, dot: u32) -> u32 {
    let glyphs = text.chars().count() as u32;
    (glyphs * ADVANCE).saturating_sub(1) * dot
}

/// Draws `text` in black with its upper left corner at (`x`, `y`). Letters are drawn as capitals.
/// Characters that the font lacks are drawn as a gap. Parts outside the picture are left out.
pub fn draw_text(picture: &mut RgbImage, text: &str, x: u32, y: u32, dot: u32) {
    for (index, character) in text.chars().enumerate() {
        let character = character.to_ascii_uppercase();
        let Some((_, rows)) = GLYPHS.iter().find(|(glyph, _)| *glyph == character) else {
            continue;
        };
        let left = x + index as u32 * ADVANCE * dot;
        for (row, bits) in (0..).zip(rows) {
            for column in (0..GLYPH.0).filter(|column| bits >> (GLYPH.0 - 1 - column) & 1 == 1) {
                fill_dot(picture, left + column * dot, y + row * dot, dot);
            }
        }
    }
}

fn fill_dot(picture: &mut RgbImage, left: u32, top: u32, dot: u32) {
    for y in top..(top + dot).min(picture.height()) {
        for x in left..(left + dot).min(picture.width()) {
            picture.put_pixel(x, y, Rgb([0, 0, 0]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seven_is_drawn_as_a_bar_and_a_slope() {
        let mut picture = RgbImage::from_pixel(5, 7, Rgb([255, 255, 255]));
        draw_text(&mut picture, "7", 0, 0, 1);
        let rows: Vec<String> = picture
            .rows()
            .map(|row| {
                row.map(|dot| if dot.0[0] == 0 { '#' } else { '.' })
                    .collect()
            })
            .collect();
        assert_eq!(
            rows,
            [
                "#####", "....#", "...#.", "...#.", "..#..", "..#..", "..#.."
            ]
        );
    }

    #[test]
    fn text_that_does_not_fit_is_cut_at_the_edge() {
        let mut picture = RgbImage::new(4, 4);
        draw_text(&mut picture, "12", 3, 3, 2);
        assert_eq!(text_width("12", 2), 22);
    }
}
