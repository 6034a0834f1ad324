//! The entropy-coded data of one scan. The data are read block by block to check that they end
//! where the scan ends.

use std::ops::RangeInclusive;

use super::{Codes, PADDING, Tables, cut_off, damage};

/// A component of the picture.
pub(super) struct JpegComponent {
    pub id: u8,
    pub quantisers: usize,
    /// Blocks in an MCU, across and down.
    pub factors: [usize; 2],
    /// Blocks across and down.
    pub blocks: [usize; 2],
    /// The same, including the blocks that pad the last MCUs.
    pub padded: [usize; 2],
    /// Whether the component has appeared in a scan.
    pub is_drawn: bool,
    /// Progressive pictures: a bit for each coefficient of a block; 1 if it is not zero.
    pub set: Vec<u64>,
}

/// The coefficients that a scan holds: all of them, or in a progressive picture (T.81, Annex G) the
/// DC coefficient or a band of AC coefficients, either their higher bits or one more lower bit.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum ScanPass {
    Sequential,
    First,
    FirstRefined,
    Others,
    OthersRefined,
}

/// A scan whose data are to be checked.
pub(super) struct Scan<'a> {
    /// MCUs of the picture, across and down.
    pub mcus: [usize; 2],
    /// Each component with the numbers of its tables.
    pub components: Vec<(&'a mut JpegComponent, u8)>,
    pub tables: &'a Tables,
    pub pass: ScanPass,
    /// The band of coefficients in this scan.
    pub band: RangeInclusive<usize>,
}

/// This many zero bits in a row, the last of them in the value of a nonzero coefficient, mean a
/// hole in the file: only one code is all zeros, and no picture has a block with that coefficient
/// alone.
const HOLE: u32 = 96;

/// The data are invalid, or they end too early.
struct Damaged;

impl Scan<'_> {
    /// Reads the data from byte `start` of the file and returns the position where they end.
    ///
    /// # Errors
    /// When they do not end where the scan ends, or hold an invalid code.
    pub fn walk(mut self, file: &[u8], start: usize) -> Result<usize, String> {
        let mut bits = BitReader {
            file,
            at: start,
            held: 0,
            count: 0,
            zeros: 0,
        };
        match self.blocks(&mut bits) {
            Ok(()) => Ok(bits.at),
            Err(Damaged) if bits.is_at_end() => Err(cut_off(file)),
            Err(Damaged) => Err(damage(file, bits.at)),
        }
    }

    fn blocks(&mut self, bits: &mut BitReader) -> Result<(), Damaged> {
        let is_interleaved = self.components.len() > 1;
        let [columns, rows] = if is_interleaved {
            self.mcus
        } else {
            self.components[0].0.blocks
        };
        let interval = match self.tables.restart_interval {
            0 => usize::MAX,
            interval => usize::from(interval),
        };
        if self.pass != ScanPass::Sequential {
            for (component, _) in &mut self.components {
                let [across, down] = component.padded;
                component.set.resize(across * down, 0);
            }
        }
        let mut run = 0;
        for mcu in 0..columns * rows {
            if mcu > 0 && mcu % interval == 0 {
                bits.restart(run, mcu / interval - 1)?;
            }
            let (column, row) = (mcu % columns, mcu / columns);
            for i in 0..self.components.len() {
                let (h, v) = if is_interleaved {
                    self.components[i].0.factors.into()
                } else {
                    (1, 1)
                };
                for (y, x) in (0..v).flat_map(|y| (0..h).map(move |x| (y, x))) {
                    self.block(i, [column * h + x, row * v + y], &mut run, bits)?;
                }
            }
        }
        bits.end(run)
    }

    /// Reads one block; `run` counts the blocks that have no more coefficients in this band.
    fn block(
        &mut self,
        i: usize,
        [x, y]: [usize; 2],
        run: &mut usize,
        bits: &mut BitReader,
    ) -> Result<(), Damaged> {
        let (component, numbers) = &mut self.components[i];
        let tables = |kind: usize, number: u8| {
            let table = self.tables.codes[kind].get(usize::from(number));
            table.and_then(Option::as_ref).ok_or(Damaged)
        };
        match self.pass {
            ScanPass::FirstRefined => return bits.take(1).map(drop),
            ScanPass::Sequential | ScanPass::First => {
                let size = bits.value(tables(0, *numbers >> 4)?)?;
                bits.take(size)?;
            }
            ScanPass::Others | ScanPass::OthersRefined => {}
        }
        match self.pass {
            ScanPass::Sequential => sequential(tables(1, *numbers & 15)?, bits),
            ScanPass::First | ScanPass::FirstRefined => Ok(()),
            ScanPass::Others | ScanPass::OthersRefined => {
                let set = component.set.get_mut(y * component.padded[0] + x);
                let set = set.ok_or(Damaged)?;
                let codes = tables(1, *numbers & 15)?;
                let (first, last) = (*self.band.start(), *self.band.end());
                match self.pass {
                    ScanPass::Others => others(codes, first..=last, set, run, bits),
                    _ => refined(codes, first..=last, set, run, bits),
                }
            }
        }
    }
}

/// Reads the AC coefficients.
fn sequential(codes: &Codes, bits: &mut BitReader) -> Result<(), Damaged> {
    let mut k = 1;
    while k <= 63 {
        let value = bits.value(codes)?;
        let (zeros, size) = (usize::from(value >> 4), value & 15);
        match (zeros, size) {
            (15, 0) => k += 16,
            (_, 0) => break,
            _ => {
                k += zeros + 1;
                bits.take(size)?;
                if bits.zeros >= HOLE {
                    return Err(Damaged);
                }
            }
        }
    }
    if k <= 64 { Ok(()) } else { Err(Damaged) }
}

/// Reads the higher bits of a band (T.81, Figure G.3).
fn others(
    codes: &Codes,
    band: RangeInclusive<usize>,
    set: &mut u64,
    run: &mut usize,
    bits: &mut BitReader,
) -> Result<(), Damaged> {
    if *run > 0 {
        *run -= 1;
        return Ok(());
    }
    let mut k = *band.start();
    while k <= *band.end() {
        let value = bits.value(codes)?;
        let (zeros, size) = (value >> 4, value & 15);
        match (zeros, size) {
            (15, 0) => k += 16,
            (_, 0) => {
                *run = (1 << zeros) - 1 + bits.take(zeros)?;
                return Ok(());
            }
            _ => {
                k += usize::from(zeros);
                *set |= 1 << k.min(63);
                k += 1;
                bits.take(size)?;
            }
        }
    }
    if k <= band.end() + 1 {
        Ok(())
    } else {
        Err(Damaged)
    }
}

/// Reads one lower bit of a band (T.81, Figure G.7): a bit for each coefficient that is already
/// nonzero, between the codes of those that become nonzero.
fn refined(
    codes: &Codes,
    band: RangeInclusive<usize>,
    set: &mut u64,
    run: &mut usize,
    bits: &mut BitReader,
) -> Result<(), Damaged> {
    let mut k = *band.start();
    while *run == 0 && k <= *band.end() {
        let value = bits.value(codes)?;
        let (mut zeros, size) = (value >> 4, value & 15);
        match (zeros, size) {
            (15, 0) => {}
            (_, 0) => {
                *run = (1 << zeros) + bits.take(zeros)?;
                break;
            }
            (_, 1) => drop(bits.take(1)?),
            _ => return Err(Damaged),
        }
        while k <= *band.end() {
            if *set >> k & 1 == 1 {
                bits.take(1)?;
            } else if zeros == 0 {
                break;
            } else {
                zeros -= 1;
            }
            k += 1;
        }
        if size == 1 {
            if k > *band.end() {
                return Err(Damaged);
            }
            *set |= 1 << k;
        }
        k += 1;
    }
    if *run > 0 {
        *run -= 1;
        for k in k..=*band.end() {
            bits.take((*set >> k & 1) as u8)?;
        }
    }
    Ok(())
}

/// The data of a scan, read bit by bit up to the next marker.
struct BitReader<'a> {
    file: &'a [u8],
    /// The next byte.
    at: usize,
    /// Bits that were read from the file and not yet used: the lowest `count`.
    held: u64,
    count: u32,
    /// Number of zero bits at the end of the bits used so far.
    zeros: u32,
}

impl BitReader<'_> {
    fn fill(&mut self) {
        while self.count <= 56 {
            let byte = match self.file.get(self.at..) {
                Some([0xff, 0x00, ..]) => {
                    self.at += 1;
                    0xff
                }
                None | Some([] | [0xff, ..]) => return,
                Some([byte, ..]) => *byte,
            };
            self.at += 1;
            self.held = self.held << 8 | u64::from(byte);
            self.count += 8;
        }
    }

    /// The value of the next code.
    fn value(&mut self, codes: &Codes) -> Result<u8, Damaged> {
        if self.count < 16 {
            self.fill();
        }
        let next = match self.count {
            count @ ..16 => self.held << (16 - count),
            count => self.held >> (count - 16),
        };
        let (value, size) = codes.value(next as u32 & 0xffff).ok_or(Damaged)?;
        self.take(size as u8)?;
        Ok(value)
    }

    /// The next `size` bits as a number.
    fn take(&mut self, size: u8) -> Result<usize, Damaged> {
        let size = u32::from(size);
        if self.count < size {
            self.fill();
        }
        self.count = self.count.checked_sub(size).ok_or(Damaged)?;
        let number = (self.held >> self.count) as usize & ((1 << size) - 1);
        self.zeros = match number {
            0 => self.zeros.saturating_add(size),
            number => number.trailing_zeros(),
        };
        Ok(number)
    }

    /// Checks that the data end here, apart from padding bits in the last byte, and that no run of
    /// empty blocks is left.
    fn end(&mut self, run: usize) -> Result<(), Damaged> {
        self.fill();
        let whole = self.count / 8;
        let is_zero = whole == 0 || self.held << (64 - 8 * whole) == 0;
        self.count = 0;
        let zeros = self.file[self.at..]
            .iter()
            .take_while(|byte| **byte == 0)
            .count();
        self.at += zeros;
        let is_marked =
            matches!(self.file.get(self.at..), Some([0xff, marker, ..]) if *marker != 0);
        if run == 0 && is_zero && whole as usize + zeros <= PADDING && is_marked {
            Ok(())
        } else {
            Err(Damaged)
        }
    }

    /// Checks that the data end here, and continues after the restart marker with this number.
    fn restart(&mut self, run: usize, number: usize) -> Result<(), Damaged> {
        self.end(run)?;
        while let Some([0xff, 0xff, ..]) = self.file.get(self.at..) {
            self.at += 1; // a marker may be preceded by fill bytes
        }
        match self.file.get(self.at..) {
            Some([0xff, marker, ..]) if usize::from(*marker) == 0xd0 + number % 8 => {
                self.at += 2;
                Ok(())
            }
            _ => Err(Damaged),
        }
    }

    fn is_at_end(&self) -> bool {
        matches!(self.file.get(self.at..), None | Some([] | [0xff]))
    }
}
