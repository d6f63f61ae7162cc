//! The `lesion-gpu` program.

fn main() -> std::process::ExitCode {
    lesion_gpu::cli::main()
}
