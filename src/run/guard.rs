//! Turns panics and full memory into errors of one line.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::Result;

use crate::error::{device, runtime, usage};

/// Turns a panic into an error, and libtorch's report of full memory into an error that names flags of `command`.
/// libtorch reports full memory by a panic or, rarely, by an error.
pub(crate) fn guarded<T>(command: &str, action: impl FnOnce() -> Result<T>) -> Result<T> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(action));
    std::panic::set_hook(hook);
    match result {
        Ok(Err(error)) if is_of_full_memory(&error) => Err(out_of_memory(command)),
        Ok(result) => result,
        Err(panic) => Err(error_of_panic(command, panic.as_ref())),
    }
}

/// Whether libtorch itself reports full memory. Other errors are not searched, because they may quote a prompt.
fn is_of_full_memory(error: &anyhow::Error) -> bool {
    let torch = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<tch::TchError>());
    torch.is_some_and(|error| is_out_of_memory(&error.to_string()))
}

/// Whether a message of libtorch says that the memory of a GPU or of the host is full.
fn is_out_of_memory(message: &str) -> bool {
    let lower = message.to_lowercase();
    [
        "out of memory",
        "can't allocate memory",
        "not enough memory",
    ]
    .iter()
    .any(|phrase| lower.contains(phrase))
}

fn out_of_memory(command: &str) -> anyhow::Error {
    if command == "evaluate" {
        return device(
            "out of memory: measure on the CPU with --device cpu, or give smaller pictures",
        );
    }
    device(
        "out of memory: try --dtype fp16, a smaller --batch-size (in tune: --micro-batch 1, in ablate: \
         --tune-batch-size 1), --vae-tiling with a --vae-tile-size below the picture's size, --cpu-offload, or smaller \
         pictures (--width, --height)",
    )
}

fn error_of_panic(command: &str, panic: &(dyn Any + Send)) -> anyhow::Error {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    if is_out_of_memory(message) {
        return out_of_memory(command);
    }
    // libtorch's words for a kernel that passed the check in `kernels.rs` and still cannot compute the attention.
    if message.contains("No available kernel") {
        return usage(
            "--attention: this kernel cannot compute the attention of this job, expected auto or math",
        );
    }
    runtime(format!(
        "internal error, please report it: {}",
        first_line(message)
    ))
}

/// The first line of a message. `unwrap` prints an error of libtorch with its line ends escaped, and thousands of
/// characters of C++ stack follow.
fn first_line(message: &str) -> &str {
    let line = message.lines().next().unwrap_or_default();
    line.split(r"\n").next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorKind, kind_of};

    #[test]
    fn a_full_memory_is_reported_in_one_line_with_the_way_out() {
        // libtorch's messages: from c10/cuda/CUDACachingAllocator.cpp, from c10/cuda/CUDAException.cpp for refusals
        // of the driver itself, and from c10/core/impl/alloc_cpu.cpp for a CPU.
        let texts = [
            "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 23.69 GiB of \
             which 1.20 GiB is free. Process 7 has 22.4 GiB memory in use. …\nException raised from …",
            "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported …",
            "[enforce fail at alloc_cpu.cpp:128] data. DefaultCPUAllocator: can't allocate memory: you \
             tried to allocate 99999999999999 bytes. Error code 12 (Cannot allocate memory)\n…",
        ];
        for text in texts {
            let torch = tch::TchError::Torch(text.to_owned());
            let panicked = guarded::<()>("sample", || {
                Err::<(), _>(&torch).map_err(|e| panic!("{e:?}"))
            });
            let returned = guarded::<()>("sample", || {
                Err(tch::TchError::Torch(text.to_owned()).into())
            });
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
        let quoted = guarded::<()>("sample", || {
            Err(usage("the prompt \"out of memory\" is no subject"))
        });
        assert_eq!(kind_of(&quoted.expect_err("it failed")), ErrorKind::Usage);
        let evaluated = out_of_memory("evaluate").to_string();
        assert!(evaluated.contains("--device cpu") && !evaluated.contains("--dtype"));
    }

    #[test]
    fn a_panic_with_escaped_line_ends_is_cut_at_the_first() {
        let torch = tch::TchError::Torch("shapes differ\nException raised from here".to_owned());
        let failed = guarded::<()>("sample", || {
            Err::<(), _>(&torch).map_err(|error| panic!("no tensor: {error:?}"))
        });
        assert_eq!(
            failed.expect_err("it panicked").to_string(),
            "internal error, please report it: no tensor: Torch(\"shapes differ"
        );
    }
}
