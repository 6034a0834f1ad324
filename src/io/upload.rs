//! Copies weights from mapped files to a GPU. Threads copy one part, with its page faults, into
//! memory that the GPU can read directly, while the part before is sent. A copy straight from a
//! mapped file would wait for one page after the other. The gain has not been measured, because no
//! GPU was available.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::slice;
use std::thread::{self, Scope};

use tch::{Cuda, Device, Kind, Tensor};

use super::mapped::let_go;
use crate::libtorch;

/// Bytes of a part. Two parts are in memory at a time; libtorch keeps their memory for the next
/// network.
const PART: usize = 64 << 20;

/// Number of bytes that a thread copies at a time.
const PIECE: usize = 1 << 20;

/// Number of threads, if there are as many cores.
const READERS: usize = 8;

/// Each tensor in a part begins at a multiple of this, like libtorch's own tensors.
const ALIGNMENT: usize = 64;

/// A tensor as it is stored in a file.
pub(super) struct UploadSource {
    pub(super) data: &'static [u8],
    pub(super) shape: Vec<i64>,
    pub(super) kind: Kind,
}

/// Some bytes of a source, and their position in a part.
struct Slice<'a> {
    source: &'a UploadSource,
    bytes: Range<usize>,
    at: usize,
}

/// Copies the tensors to `device` as `kind`, in the order of their sources.
pub(super) fn upload(sources: &[UploadSource], device: Device, kind: Kind) -> Vec<Tensor> {
    upload_by(PART, sources, device, kind)
}

fn upload_by(size: usize, sources: &[UploadSource], device: Device, kind: Kind) -> Vec<Tensor> {
    let parts = parts(sources, size);
    let Some(first) = parts.first() else {
        return Vec::new();
    };
    let mut full = Staging::new(size, device);
    let mut next = Staging::new(if parts.len() > 1 { size } else { 0 }, device);
    thread::scope(|scope| full.fill(scope, first));
    let mut tensors = Vec::with_capacity(sources.len());
    let mut arriving = Tensor::new();
    for (i, part) in parts.iter().enumerate() {
        thread::scope(|scope| {
            if let Some(after) = parts.get(i + 1) {
                next.fill(scope, after);
            }
            for slice in part {
                let UploadSource {
                    data,
                    shape,
                    kind: of,
                } = slice.source;
                if slice.bytes.start == 0 {
                    arriving = Tensor::empty(&shape[..], (*of, device));
                }
                full.send(slice, &arriving);
                if slice.bytes.end == data.len() {
                    tensors.push(arriving.to_kind(kind));
                }
            }
        });
        // The memory of this part is filled again next.
        if let Device::Cuda(gpu) = device {
            Cuda::synchronize(gpu as i64);
        }
        std::mem::swap(&mut full, &mut next);
    }
    tensors
}

/// Lays all sources out one after the other, and begins a new part when one has `size` bytes.
fn parts(sources: &[UploadSource], size: usize) -> Vec<Vec<Slice<'_>>> {
    let mut parts: Vec<Vec<Slice>> = Vec::new();
    let mut at = size;
    for source in sources {
        let mut bytes = 0..0;
        loop {
            if at >= size {
                parts.push(Vec::new());
                at = 0;
            }
            bytes = bytes.end..source.data.len().min(bytes.end + size - at);
            let is_last = bytes.end == source.data.len();
            let (begin, length) = (at, bytes.len());
            at = (at + length).next_multiple_of(ALIGNMENT);
            let slice = Slice {
                source,
                bytes: bytes.clone(),
                at: begin,
            };
            parts.last_mut().expect("just pushed").push(slice);
            if is_last {
                break;
            }
        }
    }
    parts
}

/// Memory of the host that is filled and sent in turn.
struct Staging(Tensor);

impl Staging {
    /// Memory of `size` bytes, which `device` can read directly if possible.
    fn new(size: usize, device: Device) -> Self {
        let pinned = || {
            // Before a process has used a GPU, pinning memory would use the first GPU and take
            // memory there.
            drop(Tensor::empty([1], (Kind::Uint8, device)));
            libtorch::pinned(size)
        };
        let plain = || Tensor::empty([size as i64], (Kind::Uint8, Device::Cpu));
        Staging(
            device
                .is_cuda()
                .then(pinned)
                .flatten()
                .unwrap_or_else(plain),
        )
    }

    /// Starts threads that copy a part into the memory.
    fn fill<'s>(&'s mut self, scope: &'s Scope<'s, '_>, part: &[Slice]) {
        let (first, size) = (self.0.data_ptr().cast::<MaybeUninit<u8>>(), self.0.numel());
        // SAFETY: these are a tensor's bytes. They live as long as the borrow, and nothing else
        // reads or writes them.
        #[allow(unsafe_code)]
        let mut free = unsafe { slice::from_raw_parts_mut(first, size) };
        let mut pieces = Vec::new();
        let mut end = 0;
        for Slice { source, bytes, at } in part {
            let (own, rest) = free[at - end..].split_at_mut(bytes.len());
            let data = source.data[bytes.clone()].chunks(PIECE);
            pieces.extend(own.chunks_mut(PIECE).zip(data));
            (free, end) = (rest, at + bytes.len());
        }
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let share = pieces.len().div_ceil(READERS.min(cores)).max(1);
        while !pieces.is_empty() {
            let own = pieces.split_off(pieces.len().saturating_sub(share));
            scope.spawn(move || {
                for (to, from) in own {
                    for (to, from) in to.iter_mut().zip(from) {
                        to.write(*from);
                    }
                    let_go(from);
                }
            });
        }
    }

    /// Starts to copy a slice to its place in the source's own tensor.
    fn send(&self, slice: &Slice, tensor: &Tensor) {
        let kind = slice.source.kind;
        let values = |bytes: usize| (bytes / kind.elt_size_in_bytes()) as i64;
        let staged = self.0.narrow(0, slice.at as i64, slice.bytes.len() as i64);
        let part =
            tensor
                .flatten(0, -1)
                .narrow(0, values(slice.bytes.start), values(slice.bytes.len()));
        libtorch::send(&part, &staged.view_dtype(kind));
    }
}

#[cfg(test)]
mod tests {
    use super::super::values::bytes;
    use super::*;

    /// Sources with these numbers of f32 values, and the values.
    fn sources(sizes: &[i64]) -> (Vec<UploadSource>, Vec<Tensor>) {
        let source = |(i, &n): (usize, &i64)| {
            let values = Tensor::arange(n, (Kind::Float, Device::Cpu)) + 1000.0 * i as f64;
            let source = UploadSource {
                data: Vec::leak(bytes(&values).expect("numbers have bytes")),
                shape: vec![n, 1],
                kind: Kind::Float,
            };
            (source, values.view([n, 1]))
        };
        sizes.iter().enumerate().map(source).unzip()
    }

    #[test]
    fn every_tensor_arrives_whatever_its_parts() {
        for sizes in [
            &[1, 0, 63, 64, 3, 5, 7, 900, 1, 1, 1][..],
            &[700_000, 1, 400_000],
            &[5],
            &[0],
            &[],
        ] {
            let (sources, expected) = sources(sizes);
            for part in [1 << 7, 1 << 8, 1 << 21, PART] {
                let found = upload_by(part, &sources, Device::Cpu, Kind::Float);
                assert_eq!(found, expected, "{sizes:?} by {part}");
            }
        }
    }

    #[test]
    fn values_arrive_in_the_precision_that_they_are_used_in() {
        let (sources, expected) = sources(&[3, 17, 2000]);
        let found = upload_by(256, &sources, Device::Cpu, Kind::Half);
        let expected: Vec<Tensor> = expected.iter().map(|e| e.to_kind(Kind::Half)).collect();
        assert_eq!(found, expected);
        assert!(found.iter().all(|tensor| tensor.kind() == Kind::Half));
    }

    #[test]
    fn a_part_is_filled_to_its_end() {
        let (sources, _) = sources(&[16, 0, 20, 100, 1]); // 64, 0, 80, 400 and 4 bytes
        let places = |part: &Vec<Slice>| part.iter().map(|s| (s.at, s.bytes.clone())).collect();
        let found: Vec<Vec<_>> = parts(&sources, 256).iter().map(places).collect();
        let expected = [
            vec![(0, 0..64), (64, 0..0), (64, 0..80), (192, 0..64)],
            vec![(0, 64..320)],
            vec![(0, 320..400), (128, 0..4)],
        ];
        assert_eq!(found, expected);
    }
}
