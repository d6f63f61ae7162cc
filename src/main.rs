//! The `lesion-gpu` program.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    lesion_gpu::cli::main()
}
