//! Weights on their way from mapped files to a GPU. Threads copy a part of them, and meet its page faults, into memory
//! that the GPU fetches from by itself, while the part before goes up: a copy straight from a mapped file waits for
//! one page after the other.

use std::thread::{self, Scope};

use tch::{Device, Kind, Tensor};

use crate::libtorch;

/// Bytes of a part, more only where one tensor has more; two are in memory at a time.
const PART: usize = 64 << 20;

/// Bytes that a thread copies at a time.
const PIECE: usize = 1 << 20;

/// Readers, where there are as many cores: eight are beyond the speed of a GPU's bus.
const READERS: usize = 8;

/// Tensors in a part of the memory begin at multiples of this, as libtorch's own do.
const ALIGNMENT: usize = 64;

/// A tensor as it lies in a file.
pub(super) struct Source {
    pub(super) data: &'static [u8],
    pub(super) shape: Vec<i64>,
    pub(super) kind: Kind,
}

impl Source {
    /// Bytes that it takes in a part.
    fn room(&self) -> usize {
        self.data.len().next_multiple_of(ALIGNMENT)
    }
}

/// Tensors on `device` as `kind`, in the order of their sources.
pub(super) fn upload(sources: &[Source], device: Device, kind: Kind) -> Vec<Tensor> {
    upload_by(PART, sources, device, kind)
}

fn upload_by(part: usize, sources: &[Source], device: Device, kind: Kind) -> Vec<Tensor> {
    let rooms = || sources.iter().map(Source::room);
    let Some(largest) = rooms().max() else {
        return Vec::new();
    };
    let size = part.min(rooms().sum()).max(largest).max(ALIGNMENT);
    let parts = parts(sources, size);
    let [mut full, mut next] = [(); 2].map(|()| Staging::new(size, device));
    thread::scope(|scope| full.fill(scope, parts[0]));
    let mut uploaded = Vec::with_capacity(sources.len());
    for (i, part) in parts.iter().enumerate() {
        thread::scope(|scope| {
            if let Some(after) = parts.get(i + 1) {
                next.fill(scope, after);
            }
            uploaded.extend(full.tensors(part, device, kind));
        });
        std::mem::swap(&mut full, &mut next);
    }
    uploaded
}

/// Neighbours that fit into `size` bytes together.
fn parts(sources: &[Source], size: usize) -> Vec<&[Source]> {
    let mut left = size - sources.first().map_or(0, Source::room);
    sources
        .chunk_by(|_, source| {
            let fits = source.room() <= left;
            left = if fits { left } else { size };
            left -= source.room();
            fits
        })
        .collect()
}

/// Memory of the host that is filled and sent by turns.
struct Staging(Tensor);

impl Staging {
    /// Of so many bytes, at a fixed place where the device can fetch from it.
    fn new(size: usize, device: Device) -> Self {
        let pinned = device.is_cuda().then(|| libtorch::pinned(size)).flatten();
        let plain = || Tensor::empty([size as i64], (Kind::Uint8, Device::Cpu));
        Staging(pinned.unwrap_or_else(plain))
    }

    /// Lets threads copy these sources in, one behind the other.
    fn fill<'s>(&'s mut self, scope: &'s Scope<'s, '_>, sources: &[Source]) {
        // SAFETY: the bytes are this tensor's own, live as long as it is borrowed, and nothing else reads or writes them.
        #[allow(unsafe_code)]
        let mut free = unsafe {
            std::slice::from_raw_parts_mut(self.0.data_ptr().cast::<u8>(), self.0.numel())
        };
        let mut pieces = Vec::new();
        for source in sources {
            let (own, rest) = free.split_at_mut(source.room());
            pieces.extend(own.chunks_mut(PIECE).zip(source.data.chunks(PIECE)));
            free = rest;
        }
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let share = pieces.len().div_ceil(READERS.min(cores)).max(1);
        while !pieces.is_empty() {
            let own = pieces.split_off(pieces.len().saturating_sub(share));
            scope.spawn(move || {
                for (to, from) in own {
                    to[..from.len()].copy_from_slice(from);
                }
            });
        }
    }

    /// The tensors that were filled in, on the device; when this returns they are there.
    fn tensors(&self, sources: &[Source], device: Device, kind: Kind) -> Vec<Tensor> {
        let mut begin = 0;
        let mut tensor = |source: &Source| {
            let bytes = self.0.narrow(0, begin, source.data.len() as i64);
            begin += source.room() as i64;
            let staged = bytes.view_dtype(source.kind).view(&source.shape[..]);
            // In two steps: a host converts before it sends, and then sends what nobody fetches.
            staged
                .to_device_(device, source.kind, false, true)
                .to_kind(kind)
        };
        sources.iter().map(&mut tensor).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sources of these numbers of f32 and their values.
    fn sources(sizes: &[i64]) -> (Vec<Source>, Vec<Tensor>) {
        let source = |(i, &n): (usize, &i64)| {
            let values = Tensor::arange(n, (Kind::Float, Device::Cpu)) + 1000.0 * i as f64;
            let mut bytes = vec![0; 4 * n as usize];
            values.copy_data_u8(&mut bytes, n as usize);
            let source = Source {
                data: Vec::leak(bytes),
                shape: vec![n, 1],
                kind: Kind::Float,
            };
            (source, values.view([n, 1]))
        };
        sizes.iter().enumerate().map(source).unzip()
    }

    #[test]
    fn every_tensor_arrives_whatever_its_part() {
        // Parts of 256 bytes hold 64 numbers: some of several tensors, some of one, one larger than any.
        for sizes in [
            &[1, 0, 63, 64, 3, 5, 7, 90, 1, 1, 1][..],
            &[700_000, 1, 400_000],
            &[5],
            &[0],
            &[],
        ] {
            let (sources, expected) = sources(sizes);
            for part in [1, 256, PART] {
                let found = upload_by(part, &sources, Device::Cpu, Kind::Float);
                assert_eq!(found, expected, "{sizes:?} by {part}");
            }
        }
    }

    #[test]
    fn values_arrive_in_the_precision_that_they_are_used_in() {
        let (sources, expected) = sources(&[3, 17, 2000]);
        let found = upload(&sources, Device::Cpu, Kind::Half);
        let expected: Vec<Tensor> = expected.iter().map(|e| e.to_kind(Kind::Half)).collect();
        assert_eq!(found, expected);
        assert!(found.iter().all(|tensor| tensor.kind() == Kind::Half));
    }

    #[test]
    fn neighbours_share_a_part_while_they_fit() {
        let (sources, _) = sources(&[16, 16, 33, 16, 64, 1]); // 64, 64, 192, 64, 256, 64 bytes
        let sizes: Vec<usize> = parts(&sources, 256).iter().map(|part| part.len()).collect();
        assert_eq!(sizes, [2, 2, 1, 1]);
    }
}
