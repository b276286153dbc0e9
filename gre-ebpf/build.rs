//! Rebuilds the programs when the linker changes: cargo does not track it.

use which::which;

fn main() {
    match which("bpf-linker") {
        Ok(linker) => println!("cargo:rerun-if-changed={}", linker.display()),
        Err(error) => panic!("bpf-linker: {error}; `cargo xtask setup` installs it"),
    }
}
