//! The `speedmimi` program: hands the command line to [`speedmimi::cli`] and returns its exit status.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    speedmimi::cli::main(std::env::args_os())
}
