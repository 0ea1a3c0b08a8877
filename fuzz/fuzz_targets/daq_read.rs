//! Any bytes as a `.daq` file: read and compiled. The checksum and the end mark are made right, as
//! no fuzzer would find them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    if let Some(end) = bytes.len().checked_sub(8).filter(|end| *end >= 8) {
        let total = bytes.len() as u64;
        bytes[end - 8..end].copy_from_slice(&total.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..end]);
        bytes[end..end + 4].copy_from_slice(&checksum.to_le_bytes());
        bytes[end + 4..].copy_from_slice(b"DAQ1");
    }
    let _ = daq::Model::from_bytes(&bytes);
});
