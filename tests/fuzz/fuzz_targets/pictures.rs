#![no_main]

#[allow(dead_code, reason = "each target uses one")]
#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    bodies::picture(bytes);
});
