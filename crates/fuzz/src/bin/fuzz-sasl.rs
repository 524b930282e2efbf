//! libFuzzer over [`postrider_fuzz::sasl`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider_fuzz::sasl(data));
