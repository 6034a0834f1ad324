//! Contact sheets: many numbered pictures on one picture.

use anyhow::{Result, ensure};
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use super::bitmap_font::{GLYPH, draw_text, text_width};

const WHITE: Rgb<u8> = Rgb([255, 255, 255]);

/// Pixels between two cells.
const GAP: u32 = 8;

/// The smallest width of a cell, so that its number can be read.
const SMALLEST_CELL: u32 = 160;

/// The largest width of a cell, so that eleven pictures of 1024 pixels fit on a screen.
const LARGEST_CELL: u32 = 512;

/// The largest width or height of a sheet. With very many pictures the cells shrink below
/// [`SMALLEST_CELL`] to keep to it.
const LARGEST_SHEET: u32 = 8192;

/// Labels at the edges of a sheet; both lists may be empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Labels<'a> {
    /// To the left of each row.
    pub rows: &'a [String],
    /// Above each column.
    pub columns: &'a [String],
}

/// A white sheet that is filled cell by cell. Cells are numbered from the upper left, row by row.
pub struct ContactSheet {
    sheet: RgbImage,
    columns: u32,
    cell: (u32, u32),
    dot: u32,
    /// Space for labels on the left and above.
    margin: (u32, u32),
}

impl ContactSheet {
    /// A sheet for `count` pictures of `size` = (width, height), with `columns` pictures in a row.
    /// If `columns` is `None` the sheet is nearly square: `round(sqrt(count))` rows, as in
    /// stable-diffusion-webui.
    ///
    /// # Errors
    /// When there is no picture, or a picture has no pixels, or there are so many pictures that a
    /// cell would have no pixels.
    pub fn new(count: usize, size: (u32, u32), columns: Option<usize>) -> Result<Self> {
        Self::with_labels(count, size, columns, Labels::default())
    }

    /// As [`ContactSheet::new`], with a label for each row and column.
    ///
    /// # Errors
    /// As [`ContactSheet::new`].
    pub fn with_labels(
        count: usize,
        size: (u32, u32),
        columns: Option<usize>,
        labels: Labels,
    ) -> Result<Self> {
        ensure!(
            count > 0 && size.0 > 0 && size.1 > 0,
            "a contact sheet needs at least one picture with at least one pixel, \
             found {count} of {} x {}",
            size.0,
            size.1
        );
        let (columns, rows) = layout(count, columns);
        let cell = cell_size(size, columns, rows);
        ensure!(
            cell.0 > 0 && cell.1 > 0,
            "{count} pictures are too many for one contact sheet"
        );
        let dot = (cell.0.min(cell.1) / 64).max(1);
        let longest = labels.rows.iter().map(|label| text_width(label, dot)).max();
        let head = heading_dot(labels.columns, cell.0, dot);
        let margin = (
            longest.map_or(0, |width| width + 2 * GAP),
            head.map_or(0, |head| GLYPH.1 * head + 2 * GAP),
        );
        let mut sheet = RgbImage::from_pixel(
            margin.0 + columns * (cell.0 + GAP) - GAP,
            margin.1 + rows * (cell.1 + GAP) - GAP,
            WHITE,
        );
        for (row, label) in (0..rows).zip(labels.rows) {
            let middle = row * (cell.1 + GAP) + (cell.1.saturating_sub(GLYPH.1 * dot)) / 2;
            draw_text(&mut sheet, label, GAP, margin.1 + middle, dot);
        }
        for (column, label) in (0..columns).zip(labels.columns) {
            let head = head.unwrap_or(dot);
            let middle = cell.0.saturating_sub(text_width(label, head)) / 2;
            let left = margin.0 + column * (cell.0 + GAP) + middle;
            draw_text(&mut sheet, label, left, GAP, head);
        }
        Ok(Self {
            sheet,
            columns,
            cell,
            dot,
            margin,
        })
    }

    /// Puts a picture in cell `index`, shrunk or enlarged to fit, with `label` in its upper left
    /// corner (no label if it is empty).
    pub fn place(&mut self, index: usize, picture: &RgbImage, label: &str) {
        let index = index as u32;
        let left = self.margin.0 + index % self.columns * (self.cell.0 + GAP);
        let top = self.margin.1 + index / self.columns * (self.cell.1 + GAP);
        let (width, height) = fit(picture.dimensions(), self.cell);
        // Nearest-neighbour keeps enlarged pixels sharp; shrinking needs an average of neighbours.
        let filter = if width >= picture.width() {
            FilterType::Nearest
        } else {
            FilterType::Triangle
        };
        let shown = imageops::resize(picture, width, height, filter);
        let x = left + (self.cell.0 - width) / 2;
        let y = top + (self.cell.1 - height) / 2;
        imageops::replace(&mut self.sheet, &shown, i64::from(x), i64::from(y));
        if !label.is_empty() {
            self.number(left, top, label);
        }
    }

    /// The sheet as filled so far.
    pub fn so_far(&self) -> &RgbImage {
        &self.sheet
    }

    /// The finished sheet; cells without a picture are white.
    pub fn finish(self) -> RgbImage {
        self.sheet
    }

    /// Draws the label in black on a white rectangle.
    fn number(&mut self, left: u32, top: u32, label: &str) {
        let border = 2 * self.dot;
        let plate = RgbImage::from_pixel(
            (text_width(label, self.dot) + 2 * border).min(self.cell.0),
            (GLYPH.1 * self.dot + 2 * border).min(self.cell.1),
            WHITE,
        );
        imageops::replace(&mut self.sheet, &plate, i64::from(left), i64::from(top));
        draw_text(
            &mut self.sheet,
            label,
            left + border,
            top + border,
            self.dot,
        );
    }
}

/// The largest dot size up to `dot` at which every heading fits its column; `None` without
/// headings.
fn heading_dot(headings: &[String], width: u32, dot: u32) -> Option<u32> {
    let longest = headings.iter().map(|text| text_width(text, 1)).max()?;
    Some((width / longest.max(1)).clamp(1, dot))
}

/// Number of columns and rows for `count` pictures.
fn layout(count: usize, columns: Option<usize>) -> (u32, u32) {
    let columns = columns.map_or_else(
        || {
            let rows = (count as f64).sqrt().round().max(1.0) as usize;
            count.div_ceil(rows)
        },
        |columns| columns.clamp(1, count),
    );
    (columns as u32, count.div_ceil(columns) as u32)
}

/// Size of a cell for pictures of `size`, within the limits for a cell and for the sheet.
fn cell_size(size: (u32, u32), columns: u32, rows: u32) -> (u32, u32) {
    let (width, height) = size;
    let larger = width.max(height);
    let wanted = if larger < SMALLEST_CELL {
        larger * SMALLEST_CELL.div_ceil(larger)
    } else {
        larger.min(LARGEST_CELL)
    };
    let room = LARGEST_SHEET / columns.max(rows);
    fit(
        size,
        (
            wanted.min(room.saturating_sub(GAP)),
            wanted.min(room.saturating_sub(GAP)),
        ),
    )
}

/// The largest size with the proportions of `size` that fits `bounds`.
fn fit(size: (u32, u32), bounds: (u32, u32)) -> (u32, u32) {
    let scale =
        (f64::from(bounds.0) / f64::from(size.0)).min(f64::from(bounds.1) / f64::from(size.1));
    let scaled = |length: u32, bound: u32| ((f64::from(length) * scale).round() as u32).min(bound);
    (scaled(size.0, bounds.0), scaled(size.1, bounds.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sheet_is_nearly_square() {
        let shapes: Vec<(u32, u32)> = [1, 2, 3, 4, 5, 11, 12, 16]
            .map(|count| layout(count, None))
            .to_vec();
        let expected = [
            (1, 1),
            (2, 1),
            (2, 2),
            (2, 2),
            (3, 2),
            (4, 3),
            (4, 3),
            (4, 4),
        ];
        assert_eq!(shapes, expected);
        assert_eq!(layout(11, Some(5)), (5, 3));
        assert_eq!(layout(2, Some(5)), (2, 1));
    }

    #[test]
    fn small_pictures_are_enlarged_by_whole_steps_and_large_ones_shrunk() {
        assert_eq!(cell_size((64, 64), 4, 3), (192, 192));
        assert_eq!(cell_size((256, 128), 4, 3), (256, 128));
        assert_eq!(cell_size((1024, 768), 4, 3), (512, 384));
        assert_eq!(cell_size((1024, 1024), 64, 64), (120, 120));
    }

    #[test]
    fn every_picture_stands_in_its_cell_under_its_number() -> Result<()> {
        let mut sheet = ContactSheet::new(3, (64, 64), None)?;
        for index in 0..3 {
            let picture = RgbImage::from_pixel(64, 64, Rgb([10 + index as u8, 90, 90]));
            sheet.place(index, &picture, &index.to_string());
        }
        let sheet = sheet.finish();
        assert_eq!(sheet.dimensions(), (392, 392));
        assert_eq!(sheet.get_pixel(150, 150).0, [10, 90, 90]);
        assert_eq!(sheet.get_pixel(350, 150).0, [11, 90, 90]);
        assert_eq!(sheet.get_pixel(150, 350).0, [12, 90, 90]);
        assert_eq!(
            sheet.get_pixel(350, 350).0,
            [255, 255, 255],
            "the empty cell"
        );
        assert_eq!(
            sheet.get_pixel(0, 0).0,
            [255, 255, 255],
            "the plate of the number"
        );
        assert!(
            sheet.pixels().any(|pixel| pixel.0 == [0, 0, 0]),
            "the number itself"
        );
        Ok(())
    }

    #[test]
    fn row_labels_make_room_for_themselves() -> Result<()> {
        let plain = ContactSheet::new(4, (64, 64), Some(2))?.finish();
        let rows = ["plain", "oneactor"].map(str::to_owned);
        let labels = Labels {
            rows: &rows,
            columns: &[],
        };
        let labelled = ContactSheet::with_labels(4, (64, 64), Some(2), labels)?.finish();
        assert_eq!(labelled.height(), plain.height());
        assert!(labelled.width() > plain.width());
        Ok(())
    }

    #[test]
    fn headings_stand_above_their_columns_and_shrink_to_fit() -> Result<()> {
        let columns = ["v=1", "a very long heading"].map(str::to_owned);
        let labels = Labels {
            rows: &[],
            columns: &columns,
        };
        let mut sheet = ContactSheet::with_labels(4, (64, 64), Some(2), labels)?;
        let picture = RgbImage::from_pixel(64, 64, Rgb([90, 90, 90]));
        (0..4).for_each(|index| sheet.place(index, &picture, ""));
        let sheet = sheet.finish();
        // 19 characters of 6 dots, less the last gap, are 113 dots: 1 pixel each in 192.
        assert_eq!(sheet.dimensions(), (392, 392 + 7 + 2 * GAP));
        let ink = |from: u32, to: u32| {
            let dark = |x| (0..7 + 2 * GAP).any(|y| sheet.get_pixel(x, y).0 == [0, 0, 0]);
            (from..to).any(dark)
        };
        assert!(
            ink(80, 112) && ink(240, 352),
            "both headings, each over its column"
        );
        assert!(!ink(0, 80) && !ink(112, 200));
        assert_eq!(sheet.get_pixel(0, 7 + 2 * GAP).0, [90, 90, 90]);
        Ok(())
    }

    #[test]
    fn no_picture_is_an_error() {
        assert!(ContactSheet::new(0, (64, 64), None).is_err());
    }
}
