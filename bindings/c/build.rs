//! Gives the shared library its soname: the name by which programs that were linked with it ask for
//! it. It changes with the first part of the version that is not 0, as the interface may.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    match os.as_str() {
        // Android looks libraries up by their plain names.
        "android" => println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libdaq.so"),
        "macos" | "ios" => {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libdaq.dylib");
        }
        "windows" => {}
        _ => println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libdaq.so.0"),
    }
}
