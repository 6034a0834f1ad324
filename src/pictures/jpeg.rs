//! Checks that a JPEG file is complete (ITU-T T.81). The decoder of the `image` crate fills in the
//! missing part of a damaged file without a warning. The file is therefore walked through here
//! first: every code of every scan is read, but no pixel is computed. A file is damaged if a code
//! is invalid, or if the codes end before or after the end of the picture.

mod scan;

use scan::{JpegComponent, Scan, ScanPass};

/// Up to this many zero bytes after the last code are accepted: some cameras pad files to a round
/// size.
const PADDING: usize = 16;

/// The largest number of scans, as in the decoder. A scan of a few bytes can ask for a walk through
/// the whole picture.
const MOST_SCANS: usize = 100;

/// Checks that the data of a JPEG are complete. Data after the end of the picture are not checked.
///
/// # Errors
/// When the file ends before its picture, or holds data that no encoder writes; the message names
/// the byte.
pub fn check_whole(bytes: &[u8]) -> Result<(), String> {
    let mut file = File { bytes, at: 2 }; // after the start marker
    let mut tables = Tables::default();
    let mut frame = None;
    let mut scans = 0;
    loop {
        let marker = file.next_marker(scans == 0)?;
        if matches!(marker, 0x01 | 0xd0..=0xd7) {
            continue; // these markers have no content
        }
        let begin = file.at;
        let damaged = || damage(bytes, begin);
        match (marker, &mut frame) {
            (0xd9, Some(frame)) => return Frame::is_drawn(frame).then_some(()).ok_or_else(damaged),
            (0xc0..=0xc2, None) => {
                let read = Frame::read(file.segment()?, marker == 0xc2);
                frame = Some(read.ok_or_else(damaged)?);
            }
            (0xc4, _) => tables.add_codes(file.segment()?).ok_or_else(damaged)?,
            (0xda, Some(frame)) if scans < MOST_SCANS => {
                scans += 1;
                let header = file.segment()?;
                let scan = frame.scan(header, &tables).ok_or_else(damaged)?;
                file.at = scan.walk(bytes, file.at)?;
            }
            (0xdb, _) => tables.add_quantisers(file.segment()?).ok_or_else(damaged)?,
            (0xdd, _) => {
                let interval = file.segment()?.first_chunk::<2>();
                tables.restart_interval = interval
                    .map(|b| u16::from_be_bytes(*b))
                    .ok_or_else(damaged)?;
            }
            // A second frame, a scan before any frame, too many scans, or an invalid marker.
            (0xc0..=0xc2 | 0xd8..=0xda | 0x02..=0xbf, _) => return Err(damaged()),
            _ => drop(file.segment()?),
        }
    }
}

fn cut_off(bytes: &[u8]) -> String {
    format!(
        "the JPEG ends after {} bytes, before its picture does: download or save it again",
        bytes.len()
    )
}

fn damage(bytes: &[u8], at: usize) -> String {
    format!(
        "the JPEG is damaged near byte {at} of {}: download or save it again; if it looks right in another program, save \
         it there as PNG",
        bytes.len()
    )
}

/// The bytes of the file and the reader's position.
struct File<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> File<'a> {
    /// Reads the next marker. If `is_lax`, other bytes before it are skipped: some cameras write
    /// extra bytes between the segments that come before the picture.
    fn next_marker(&mut self, is_lax: bool) -> Result<u8, String> {
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            match rest {
                [] | [_] => return Err(cut_off(self.bytes)),
                [0xff, marker, ..] if !matches!(marker, 0x00 | 0xff) => {
                    self.at += 2;
                    return Ok(*marker);
                }
                [0xff, 0xff, ..] => self.at += 1, // a marker may be preceded by fill bytes
                _ if is_lax => self.at += 1,
                _ => return Err(damage(self.bytes, self.at)),
            }
        }
    }

    /// The content of the marker that was just read.
    fn segment(&mut self) -> Result<&'a [u8], String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.first_chunk::<2>().ok_or_else(|| cut_off(self.bytes))?;
        let length = usize::from(u16::from_be_bytes(*length));
        let segment = rest.get(..length).ok_or_else(|| cut_off(self.bytes))?;
        self.at += length;
        segment.get(2..).ok_or_else(|| damage(self.bytes, self.at))
    }
}

/// Tables that scans refer to.
#[derive(Default)]
struct Tables {
    /// Four tables for DC coefficients and four for AC coefficients.
    codes: [[Option<Codes>; 4]; 2],
    has_quantisers: [bool; 4],
    /// MCUs between two restart markers; 0 means no restart markers.
    restart_interval: u16,
}

impl Tables {
    fn add_codes(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((place, rest)) = segment.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>()?;
            let (values, rest) =
                rest.split_at_checked(counts.iter().map(|n| usize::from(*n)).sum())?;
            let table = self
                .codes
                .get_mut(usize::from(place >> 4))?
                .get_mut(usize::from(place & 15))?;
            *table = Some(Codes::new(counts, values)?);
            segment = rest;
        }
        Some(())
    }

    fn add_quantisers(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((place, rest)) = segment.split_first() {
            let is_wide = place >> 4 != 0;
            let (values, rest) = rest.split_at_checked(if is_wide { 128 } else { 64 })?;
            let has_zero = values
                .chunks(if is_wide { 2 } else { 1 })
                .any(|q| q.iter().all(|byte| *byte == 0));
            *self.has_quantisers.get_mut(usize::from(place & 15))? = !has_zero;
            segment = rest;
        }
        Some(())
    }
}

/// A Huffman code (T.81, Annex C): codes of the same length are consecutive numbers.
#[derive(Clone)]
struct Codes {
    /// For each code length from 1 bit: the first code, the number of codes, and the index of the
    /// first code's value.
    lengths: [(u32, u32, usize); 16],
    values: Vec<u8>,
}

impl Codes {
    fn new(counts: &[u8; 16], values: &[u8]) -> Option<Codes> {
        let (mut code, mut place) = (0u32, 0);
        let mut lengths = [(0, 0, 0); 16];
        for (bits, (length, count)) in (1..).zip(lengths.iter_mut().zip(counts)) {
            *length = (code, u32::from(*count), place);
            code += u32::from(*count);
            place += usize::from(*count);
            if code > 1 << bits {
                return None; // more codes than there are numbers with this many bits
            }
            code <<= 1;
        }
        Some(Codes {
            lengths,
            values: values.to_vec(),
        })
    }

    /// The value of the code at the start of `next` (16 bits), and the code's length in bits.
    fn value(&self, next: u32) -> Option<(u8, u32)> {
        (1..)
            .zip(&self.lengths)
            .find_map(|(bits, (first, count, place))| {
                let nth = (next >> (16 - bits)).checked_sub(*first)?;
                let value = self.values.get(place + nth as usize);
                (nth < *count).then(|| value.map(|value| (*value, bits)))?
            })
    }
}

/// The picture's size and components.
struct Frame {
    is_progressive: bool,
    width: usize,
    height: usize,
    components: Vec<JpegComponent>,
}

impl Frame {
    fn read(segment: &[u8], is_progressive: bool) -> Option<Frame> {
        let [_, h1, h0, w1, w0, _, rest @ ..] = segment else {
            return None;
        };
        let side = |high: &u8, low: &u8| usize::from(u16::from_be_bytes([*high, *low]));
        let (height, width) = (side(h1, h0), side(w1, w0));
        let parts = rest.chunks_exact(3);
        let factors = || {
            parts
                .clone()
                .map(|part| (usize::from(part[1] >> 4), usize::from(part[1] & 15)))
        };
        let are_factors = factors().all(|(h, v)| (1..=4).contains(&h) && (1..=4).contains(&v));
        let most_h = factors().map(|(h, _)| h).max()?;
        let most_v = factors().map(|(_, v)| v).max()?;
        if width == 0 || height == 0 || parts.len() > 4 || !are_factors {
            return None;
        }
        let mcus = [width.div_ceil(8 * most_h), height.div_ceil(8 * most_v)];
        let component = |part: &[u8]| {
            let (h, v) = (usize::from(part[1] >> 4), usize::from(part[1] & 15));
            JpegComponent {
                id: part[0],
                quantisers: usize::from(part[2]),
                factors: [h, v],
                // A component that is alone in a scan has no blocks beyond the edge of the picture.
                blocks: [
                    (width * h).div_ceil(8 * most_h),
                    (height * v).div_ceil(8 * most_v),
                ],
                padded: [mcus[0] * h, mcus[1] * v],
                is_drawn: false,
                set: Vec::new(),
            }
        };
        Some(Frame {
            is_progressive,
            width: mcus[0],
            height: mcus[1],
            components: parts.clone().map(component).collect(),
        })
    }

    /// Whether every component has appeared in a scan.
    fn is_drawn(&self) -> bool {
        self.components.iter().all(|component| component.is_drawn)
    }

    /// The scan described by this header.
    fn scan<'a>(&'a mut self, header: &[u8], tables: &'a Tables) -> Option<Scan<'a>> {
        let (count, rest) = header.split_first()?;
        let (parts, rest) = rest.split_at_checked(2 * usize::from(*count))?;
        let [first, last, bits, ..] = rest else {
            return None;
        };
        let (high, low) = (bits >> 4, bits & 15);
        if self.is_progressive && high != 0 && high != low + 1 {
            return None; // each refinement pass adds the bit below that of the previous pass
        }
        let pass = match (self.is_progressive, first, last, high) {
            (false, ..) => ScanPass::Sequential,
            (true, 0, 0, 0) => ScanPass::First,
            (true, 0, 0, _) => ScanPass::FirstRefined,
            (true, 1..=63, 1..=63, 0) if first <= last && *count == 1 => ScanPass::Others,
            (true, 1..=63, 1..=63, _) if first <= last && *count == 1 => ScanPass::OthersRefined,
            _ => return None,
        };
        let mut chosen: Vec<(&'a mut JpegComponent, u8)> = Vec::new();
        for component in &mut self.components {
            if let Some(part) = parts.chunks(2).find(|part| part[0] == component.id) {
                component.is_drawn = true;
                if !*tables.has_quantisers.get(component.quantisers)? {
                    return None;
                }
                chosen.push((component, part[1]));
            }
        }
        // A scan lists its components in the order of the frame (T.81, B.2.3).
        if chosen.is_empty() || chosen.len() != usize::from(*count) {
            return None;
        }
        Some(Scan {
            mcus: [self.width, self.height],
            components: chosen,
            tables,
            pass,
            band: usize::from(*first)..=usize::from(*last),
        })
    }
}
