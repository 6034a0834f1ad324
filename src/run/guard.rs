//! Panics, and memory that is full, as errors of one line.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::Result;

use crate::error::{device, runtime, usage};

/// Turns a panic into an error, and what libtorch says of a full memory into the way out: it comes as a
/// panic or, rarely, as an error.
pub(crate) fn guarded<T>(action: impl FnOnce() -> Result<T>) -> Result<T> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(action));
    std::panic::set_hook(hook);
    match result {
        Ok(Err(error)) if is_of_full_memory(&error) => Err(out_of_memory()),
        Ok(result) => result,
        Err(panic) => Err(error_of_panic(panic.as_ref())),
    }
}

/// Whether an error is libtorch's own about memory; others may quote a prompt.
fn is_of_full_memory(error: &anyhow::Error) -> bool {
    let torch = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<tch::TchError>());
    torch.is_some_and(|error| tells_of_full_memory(&error.to_string()))
}

/// Whether libtorch says that memory is full, of a GPU or of the host.
fn tells_of_full_memory(message: &str) -> bool {
    let lower = message.to_lowercase();
    [
        "out of memory",
        "can't allocate memory",
        "not enough memory",
    ]
    .iter()
    .any(|phrase| lower.contains(phrase))
}

fn out_of_memory() -> anyhow::Error {
    device(
        "out of memory: try --dtype fp16, a smaller --batch-size (in tune: --micro-batch 1, in ablate: \
         --tune-batch-size 1), --vae-tiling with a --vae-tile-size below the picture's size, --cpu-offload, or smaller \
         pictures (--width, --height)",
    )
}

fn error_of_panic(panic: &(dyn Any + Send)) -> anyhow::Error {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    if tells_of_full_memory(message) {
        return out_of_memory();
    }
    // libtorch's words, where `located` asked for less than the kernel has to compute.
    if message.contains("No available kernel") {
        return usage(
            "--attention: the kernel cannot compute the attention of this job, expected auto or math",
        );
    }
    let line = message.lines().next().unwrap_or_default();
    runtime(format!("internal error, please report it: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorKind, kind_of};

    #[test]
    fn a_full_memory_is_reported_in_one_line_with_the_way_out() {
        // As libtorch words them: c10/cuda/CUDACachingAllocator.cpp, c10/cuda/CUDAException.cpp for what
        // the driver itself refuses, c10/core/impl/alloc_cpu.cpp for a CPU.
        let texts = [
            "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 23.69 GiB of \
             which 1.20 GiB is free. Process 7 has 22.4 GiB memory in use. …\nException raised from …",
            "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported …",
            "[enforce fail at alloc_cpu.cpp:128] data. DefaultCPUAllocator: can't allocate memory: you \
             tried to allocate 99999999999999 bytes. Error code 12 (Cannot allocate memory)\n…",
        ];
        for text in texts {
            let torch = tch::TchError::Torch(text.to_owned());
            let panicked = guarded::<()>(|| Err::<(), _>(&torch).map_err(|e| panic!("{e:?}")));
            let returned = guarded::<()>(|| Err(tch::TchError::Torch(text.to_owned()).into()));
            for result in [panicked, returned] {
                let error = result.expect_err("it failed");
                assert_eq!(kind_of(&error).exit_code(), 4, "{error:#}");
                let line = format!("{error:#}");
                for flag in [
                    "--dtype",
                    "--batch-size",
                    "--micro-batch",
                    "--vae-tiling",
                    "--cpu-offload",
                ] {
                    assert!(line.contains(flag), "{flag}: {line}");
                }
                assert_eq!(line.lines().count(), 1);
            }
        }
        let quoted = guarded::<()>(|| Err(usage("the prompt \"out of memory\" is no subject")));
        assert_eq!(kind_of(&quoted.expect_err("it failed")), ErrorKind::Usage);
    }
}
