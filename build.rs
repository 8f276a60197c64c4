//! Tells the program its commit and target, for `--version`, and makes the messages and services of `proto/`.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

use protox::Compiler;

/// Every file of `proto/`; what they import comes by itself.
const PROTOS: [&str; 3] = ["speedmimi/v1/backend.proto", "speedmimi/v1/config.proto", "speedmimi/v1/monitor.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    tell_origin();
    compile_protos()
}

fn tell_origin() {
    // Where there is no history, whoever builds may say.
    println!("cargo:rerun-if-env-changed=SPEEDMIMI_COMMIT");
    let told = std::env::var("SPEEDMIMI_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = told.or_else(commit_of_history);
    let commit = commit.as_deref().map_or("unknown", str::trim);
    println!("cargo:rustc-env=SPEEDMIMI_COMMIT={commit}");
    println!("cargo:rustc-env=SPEEDMIMI_TARGET={}", std::env::var("TARGET").unwrap_or_default());
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/logs/HEAD");
}

fn commit_of_history() -> Option<String> {
    let commit = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok();
    commit.filter(|out| out.status.success()).and_then(|out| String::from_utf8(out.stdout).ok())
}

/// In Rust alone, so that nobody needs `protoc`. The descriptors keep the comments: reflection tells them.
fn compile_protos() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(PROTOS)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("speedmimi.v1.bin"), compiler.encode_file_descriptor_set())?;
    let services = tonic_prost_build::configure().build_client(false).build_transport(false);
    services.compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
