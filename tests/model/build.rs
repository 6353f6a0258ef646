//! Says to the files of `host` that they are compiled into this package: their own tests need real threads.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cfg=loom");
}
