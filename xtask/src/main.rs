//! Maintenance commands: `cargo xtask codegen`.
fn main() {}
