//! A safetensors file: its header as `inspect` reads it, then as a small file of ours, as an actor,
//! and as weights.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use oneactor::io::blob::Blob;
use oneactor::io::finite_scan::FiniteScan;
use oneactor::io::header::Header;
use oneactor::io::tensors::TensorFile;
use oneactor::io::weights::Weights;
use oneactor::method::actor::Actor;
use oneactor_fuzz::forever;
use tch::{Device, Kind};

fuzz_target!(|bytes: &[u8]| {
    let header = Header::parse(bytes, bytes.len() as u64);
    let path = Path::new("fuzz.safetensors");
    let file = TensorFile::from_bytes(bytes);
    if let Ok(file) = file {
        assert!(header.is_ok(), "two readers of one format agree");
        let again = file.to_bytes().and_then(|bytes| TensorFile::from_bytes(&bytes));
        let again = again.expect("what was read can be written and read");
        assert_eq!(again.metadata, file.metadata);
        assert!(again.tensors.keys().eq(file.tensors.keys()));
        let _ = Actor::from_file(&file, path, Device::Cpu);
    }
    // SAFETY: weights, scan and tensors end in this block.
    let bytes = unsafe { forever(bytes) };
    let blob = Blob::Mapped { path: path.to_owned(), bytes };
    if let Ok(weights) = Weights::open(&[blob], Device::Cpu, Kind::Half) {
        let root = weights.root();
        for (name, shape) in [("a", vec![2, 3]), ("b", vec![4]), ("c", vec![0, 7]), ("d", vec![])] {
            let _ = root.tensor(name, &shape).to_kind(Kind::Float);
        }
        if let Ok(read) = weights.finish() {
            let _ = FiniteScan::start(read.values).wait();
        }
    }
});
