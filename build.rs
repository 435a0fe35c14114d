//! Has the linker put the functions of the start and of a call beside one another.
//!
//! They are a sixth of the program. Where they lie scattered over all of it, most of its pages come
//! into memory with them and calls miss in the caches of addresses. `benches/order.txt` names them,
//! and `cargo bench --bench compare -- order` writes it. What is not found any more, after
//! another version of a crate or the compiler, stands where it would stand anyway.
#![expect(clippy::disallowed_methods, reason = "cargo tells a build script by its environment")]

use std::env;
use std::path::Path;

fn main() {
    let list = "benches/order.txt";
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={list}");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|it| it == value);
    // There Rust brings its own linker, which knows the option, unless somebody chose another.
    let has_lld = is("TARGET", "x86_64-unknown-linux-gnu")
        && env::var_os("RUSTC_LINKER").is_none()
        && env::var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| !flags.contains("link"));
    if !has_lld || !is("PROFILE", "release") {
        return;
    }
    let root = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let list = Path::new(&root).join(list);
    for option in
        [&format!("--symbol-ordering-file={}", list.display()), "--no-warn-symbol-ordering"]
    {
        println!("cargo:rustc-link-arg-bin=switchpoint=-Wl,{option}");
    }
}
