//! The simulated GPU itself: it refuses what a GPU refuses, counts what is done, and computes what
//! the CPU computes. Each test runs itself again in a process that loads the simulation.

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;
use std::process::Command;

use oneactor::libtorch::{peak_memory, pinned, seeded};
use tch::{Device, IndexOp, Kind, TchError, Tensor};

use crate::common::difference;
use crate::common::program::folder;
use crate::gpu::{Report, library_for, simulate};

/// Set in the process that loads the simulation.
const INSIDE: &str = "ONEACTOR_INSIDE_SIMULATION";

const GPU: Device = Device::Cuda(0);

/// Runs `body` in the simulation. In the test's own process, returns what was counted; `None` if
/// libtorch cannot be simulated.
fn simulated(test: &str, variables: &[(&str, &str)], body: impl FnOnce()) -> Option<Report> {
    simulated_test(&format!("simulator::{test}"), variables, body)
}

/// The same for a test with this whole path.
pub fn simulated_test(
    test: &str,
    variables: &[(&str, &str)],
    body: impl FnOnce(),
) -> Option<Report> {
    if env::var_os(INSIDE).is_some() {
        body();
        return None;
    }
    let library = library_for(test)?;
    let report: PathBuf = folder("cuda", &test.replace("::", "-")).join("report.json");
    let mut command = Command::new(env::current_exe().expect("the test is a file"));
    simulate(&mut command, &library);
    let output = command
        .args(["--exact", test])
        .env(INSIDE, "1")
        .env("FAKECUDA_REPORT", &report)
        .envs(variables.iter().copied())
        .output()
        .expect("the test starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
    Some(Report::read(&report))
}

/// The message of a call that has to fail.
#[track_caller]
fn refusal<T>(result: Result<T, TchError>) -> String {
    result.err().expect("the call fails").to_string()
}

fn ones(kind: Kind, device: Device) -> Tensor {
    Tensor::ones([2, 2], (kind, device))
}

#[test]
fn arguments_on_different_devices_are_refused() {
    simulated(
        "arguments_on_different_devices_are_refused",
        &[("FAKECUDA_DEVICES", "2")],
        || {
            let on_gpu = ones(Kind::Float, GPU);
            for other in [Device::Cpu, Device::Cuda(1)] {
                let other = ones(Kind::Float, other);
                for result in [
                    on_gpu.f_add(&other),
                    on_gpu.f_matmul(&other),
                    other.f_mul(&on_gpu),
                ] {
                    let message = refusal(result);
                    assert!(
                        message.contains("Expected all tensors to be on the same device"),
                        "{message}"
                    );
                }
            }
            // A single number on the CPU is no argument on another device.
            let sum = on_gpu.f_add(&Tensor::from(1f32)).expect("it is allowed");
            assert_eq!(f64::try_from(sum.sum(Kind::Float)).expect("a number"), 8.0);
            let sum = on_gpu.to_device(Device::Cuda(1)) + ones(Kind::Float, Device::Cuda(1));
            assert_eq!(sum.device(), Device::Cuda(1));
            assert!(Tensor::f_zeros([1], (Kind::Float, Device::Cuda(2))).is_err());
        },
    );
}

#[test]
fn products_need_equal_dtypes_that_are_not_whole_numbers() {
    simulated(
        "products_need_equal_dtypes_that_are_not_whole_numbers",
        &[],
        || {
            let [half, float, whole] =
                [Kind::Half, Kind::Float, Kind::Int64].map(|kind| ones(kind, GPU));
            let message = refusal(half.f_matmul(&float));
            assert!(message.contains("same dtype"), "{message}");
            let message = refusal(whole.f_matmul(&whole));
            assert!(message.contains("not implemented for 'Long'"), "{message}");
            let on_cpu = ones(Kind::Int64, Device::Cpu);
            assert!(on_cpu.f_matmul(&on_cpu).is_ok(), "the CPU has this product");
        },
    );
}

#[test]
fn an_operator_without_a_kernel_for_cuda_is_refused() {
    simulated(
        "an_operator_without_a_kernel_for_cuda_is_refused",
        &[],
        || {
            let message = refusal(ones(Kind::Float, GPU).f_to_mkldnn(Kind::Float));
            assert!(
                message.contains("Could not run 'aten::to_mkldnn'"),
                "{message}"
            );
            let on_cpu = ones(Kind::Float, Device::Cpu).f_to_mkldnn(Kind::Float);
            assert!(on_cpu.is_ok(), "the CPU has this operator");
        },
    );
}

#[test]
fn the_host_may_not_touch_the_memory_of_the_device() {
    simulated(
        "the_host_may_not_touch_the_memory_of_the_device",
        &[],
        || {
            let address = ones(Kind::Float, GPU).data_ptr() as usize;
            let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux has it");
            let permissions = maps.lines().find_map(|line| {
                let mut parts = line.split([' ', '-']);
                let mut bound = || usize::from_str_radix(parts.next()?, 16).ok();
                let range = bound()?..bound()?;
                range.contains(&address).then(|| line.split(' ').nth(1))?
            });
            assert_eq!(permissions, Some("---p"));
        },
    );
}

#[test]
fn copies_and_waits_are_counted() {
    let counted = simulated("copies_and_waits_are_counted", &[], || {
        // From memory that is not pinned: the host waits.
        let x = Tensor::from_slice(&[1f32, 0.0, 2.0, 3.0]).to_device(GPU);
        // From pinned memory, non-blocking: no wait.
        let bytes = pinned(4096).expect("there is a GPU");
        let _ = bytes.to_device_(GPU, Kind::Uint8, true, false);
        assert_eq!(x.i(3).double_value(&[]), 3.0);
        assert_eq!(x.nonzero().size(), [3, 1]);
        let _ = x.to_device(Device::Cpu);
    });
    let Some(report) = counted else { return };
    let expected = [
        ("aten::nonzero", 1),
        ("copy to the device, pageable", 1),
        ("copy to the host", 1),
        ("item", 1),
    ];
    let expected: BTreeMap<String, i64> = expected
        .into_iter()
        .map(|(reason, count)| (reason.to_owned(), count))
        .collect();
    assert_eq!(report.waits, expected);
    for (total, expected) in [
        ("copies_to_device", 2),
        ("pageable_copies", 1),
        ("bytes_to_device", 16 + 4096),
        ("copies_to_host", 2),
        ("bytes_to_host", 4 + 16),
        ("peak_pinned_bytes", 4096),
        ("waits", 4),
    ] {
        assert_eq!(report.totals[total], expected, "{total}");
    }
}

#[test]
fn memory_is_counted_in_blocks_and_refused_beyond_the_limit() {
    let test = "memory_is_counted_in_blocks_and_refused_beyond_the_limit";
    let counted = simulated(test, &[("FAKECUDA_MEMORY", "1048576")], || {
        let bytes = |count: i64| Tensor::f_empty([count], (Kind::Uint8, GPU));
        let small = bytes(100).expect("there is room");
        assert_eq!(peak_memory(GPU), Some(512));
        let message = refusal(bytes(1_048_576));
        assert!(message.contains("CUDA out of memory"), "{message}");
        drop(small);
        drop(bytes(1_048_576).expect("all of it is free again"));
        assert_eq!(peak_memory(GPU), Some(1_048_576));
    });
    let Some(report) = counted else { return };
    assert_eq!(report.memory[0]["refusals"], 1);
    assert_eq!(report.memory[0]["left_bytes"], 0);
    assert_eq!(report.peak(), 1_048_576);
}

#[test]
fn pinned_memory_is_refused_beyond_its_limit() {
    simulated(
        "pinned_memory_is_refused_beyond_its_limit",
        &[("FAKECUDA_PINNED", "8192")],
        || {
            let first = pinned(5000).expect("it fits");
            assert!(pinned(1).is_none(), "5000 bytes occupy 8192");
            drop(first);
            assert!(pinned(8192).is_some());
        },
    );
}

/// A network in small: the result, and the gradient of its input.
fn network(device: Device) -> [Tensor; 2] {
    let _drawing = seeded(1);
    let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_device(device);
    let xs = random(&[2, 8, 6, 6]).set_requires_grad(true);
    let (conv, linear) = (random(&[16, 8, 3, 3]), random(&[16, 16]));
    let transposed = random(&[16, 16, 2, 2]);
    let ys = xs.conv2d(&conv, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1);
    let ys = ys
        .group_norm(4, None::<Tensor>, None::<Tensor>, 1e-5, true)
        .silu();
    let ys = ys.conv_transpose2d(
        &transposed,
        None::<Tensor>,
        [2, 2],
        [0, 0],
        [0, 0],
        1,
        [1, 1],
    );
    let ys = ys.flatten(2, 3).transpose(1, 2).matmul(&linear);
    let heads = ys.reshape([2, 144, 2, 8]).transpose(1, 2);
    let none = None::<Tensor>;
    let ys =
        Tensor::scaled_dot_product_attention(&heads, &heads, &heads, none, 0.0, false, None, false);
    // Writes through views of the same memory.
    let ys = ys.contiguous();
    let _ = ys.detach().narrow(2, 0, 3).fill_(0.5);
    let ys = ys.layer_norm([8], None::<Tensor>, None::<Tensor>, 1e-5, true);
    ys.sigmoid().sum(Kind::Float).backward();
    [ys.detach(), xs.grad()].map(|tensor| tensor.to_device(Device::Cpu))
}

#[test]
fn results_and_gradients_are_those_of_the_cpu() {
    simulated("results_and_gradients_are_those_of_the_cpu", &[], || {
        for (found, expected) in network(GPU).iter().zip(&network(Device::Cpu)) {
            let difference = difference(found, expected);
            assert!(difference.l2 < 1e-5, "{}", difference.text);
        }
        // Summed in 16 bits, ones stop at 2048.
        let ones = Tensor::ones([1, 8192], (Kind::Half, GPU));
        assert_eq!(
            ones.matmul(&ones.transpose(0, 1)).double_value(&[0, 0]),
            8192.0
        );
    });
}
