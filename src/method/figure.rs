//! The figure in a mask: the largest connected part of the mask, and the box around it.

/// A box of positions: left, top, width, height.
pub type PositionBox = [i64; 4];

/// The mask with only its largest connected part. The mask is given row by row, with `width` positions each.
/// Positions that touch at a side or a corner are connected, as in scikit-image's `label`. Among equally large
/// parts, the part with the first position is taken.
pub fn largest_part(mask: &[bool], width: usize) -> Vec<bool> {
    let mut seen = vec![false; mask.len()];
    let mut largest = Vec::new();
    for start in 0..mask.len() {
        if mask[start] && !seen[start] {
            let part = part_at(start, mask, width, &mut seen);
            if part.len() > largest.len() {
                largest = part;
            }
        }
    }
    let mut only = vec![false; mask.len()];
    largest.into_iter().for_each(|place| only[place] = true);
    only
}

/// The positions of the connected part that contains `start`.
fn part_at(start: usize, mask: &[bool], width: usize, seen: &mut [bool]) -> Vec<usize> {
    let height = mask.len() / width;
    seen[start] = true;
    let mut part = vec![start];
    let mut next = 0;
    while let Some(&place) = part.get(next) {
        next += 1;
        let (row, column) = (place / width, place % width);
        for y in row.saturating_sub(1)..=(row + 1).min(height - 1) {
            for x in column.saturating_sub(1)..=(column + 1).min(width - 1) {
                let neighbour = y * width + x;
                if mask[neighbour] && !seen[neighbour] {
                    seen[neighbour] = true;
                    part.push(neighbour);
                }
            }
        }
    }
    part
}

/// The smallest box that contains the whole mask; `None` for an empty mask.
pub fn bounding_box(mask: &[bool], width: usize) -> Option<PositionBox> {
    let places = || (0..mask.len()).filter(|&place| mask[place]);
    let columns = || places().map(|place| place % width);
    let (top, bottom) = (places().next()? / width, places().next_back()? / width);
    let (left, right) = (columns().min()?, columns().max()?);
    Some([left, top, right + 1 - left, bottom + 1 - top].map(|n| n as i64))
}

/// The mask with all positions outside the box cleared.
pub fn within(mask: &[bool], width: usize, [x, y, w, h]: PositionBox) -> Vec<bool> {
    let is_inside = |place: usize| {
        let (row, column) = ((place / width) as i64, (place % width) as i64);
        (y..y + h).contains(&row) && (x..x + w).contains(&column)
    };
    let places = mask.iter().enumerate();
    places.map(|(i, &is_set)| is_set && is_inside(i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(rows: [&str; 4]) -> Vec<bool> {
        let row = |row: &str| row.chars().map(|c| c == '#').collect::<Vec<_>>();
        rows.into_iter().flat_map(row).collect()
    }

    #[test]
    fn the_larger_part_stays_and_corners_connect() {
        let whole = mask(["##...", "....#", "...#.", "..#.."]);
        let part = mask([".....", "....#", "...#.", "..#.."]);
        assert_eq!(largest_part(&whole, 5), part);
        assert_eq!(bounding_box(&part, 5), Some([2, 1, 3, 3]));
        // The end of a row is not a neighbour of the start of the next row.
        let apart = mask(["....#", "#....", ".....", "....."]);
        let first = mask(["....#", ".....", ".....", "....."]);
        assert_eq!(largest_part(&apart, 5), first, "the first of equal ones");
    }

    #[test]
    fn an_empty_mask_has_no_box() {
        let empty = mask(["....."; 4]);
        assert_eq!(largest_part(&empty, 5), empty);
        assert_eq!(bounding_box(&empty, 5), None);
    }

    #[test]
    fn what_lies_outside_of_a_box_is_cleared() {
        let whole = mask(["#####"; 4]);
        let inside = mask([".....", "..##.", "..##.", "....."]);
        assert_eq!(within(&whole, 5, [2, 1, 2, 2]), inside);
    }
}
