//! The quantity that a column of the table measures.

use super::Measure;
use super::region::Region;

/// A measure of a part of the pictures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantity {
    /// The measure.
    pub measure: Measure,
    /// The part of the pictures.
    pub region: Region,
    /// Whether pictures are compared with each other, instead of with the target or their prompts.
    pub is_pairwise: bool,
}

impl Quantity {
    /// The name of the quantity's column in results and gates.
    pub fn name(self) -> String {
        let pairwise = if self.is_pairwise { "_pairwise" } else { "" };
        format!("{}{}{pairwise}", self.measure.name(), self.region.ending())
    }
}
