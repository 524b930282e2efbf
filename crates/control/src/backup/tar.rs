//! Files in one file, as `tar` reads them (POSIX.1-1988, `ustar`).

use crate::Error;

/// Everything in such a file is in blocks of this size.
pub(super) const BLOCK: u64 = HEADER as u64;
/// Length of a header: one block.
pub(super) const HEADER: usize = 512;
/// Longest name that fits without extensions.
const MAX_NAME: usize = 100;
/// Where the fields of a header are.
const SIZE: std::ops::Range<usize> = 124..136;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const KIND: usize = 156;
const MAGIC: std::ops::Range<usize> = 257..265;
/// Sizes below this are written as octal digits.
const OCTAL: u64 = 8 << 30;

/// The header of a file that its owner alone may read.
pub(super) fn header(name: &str, size: u64, modified: u64) -> Result<Vec<u8>, Error> {
    if name.len() > MAX_NAME {
        return Err(Error::Failed(format!("{name:?} is too long a name for a tar file")));
    }
    let mut header = vec![0; HEADER];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000600\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    match size {
        0..OCTAL => header[SIZE].copy_from_slice(format!("{size:011o}\0").as_bytes()),
        // GNU's form: a set bit, and the number in binary.
        _ => {
            header[SIZE.start] = 0x80;
            header[SIZE.end - 8..SIZE.end].copy_from_slice(&size.to_be_bytes());
        }
    }
    header[136..148].copy_from_slice(format!("{:011o}\0", modified % OCTAL).as_bytes());
    header[KIND] = b'0';
    header[MAGIC].copy_from_slice(b"ustar\x0000");
    let sum = checksum(&header);
    header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(header)
}

/// Name and size of the file that a header is of; none at the end of the files.
pub(super) fn parse(header: &[u8]) -> Result<Option<(String, u64)>, Error> {
    if header.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let broken = || Error::Invalid("not a tar file that postrider wrote".to_owned());
    if header.len() != HEADER || octal(&header[CHECKSUM]) != Some(checksum(header)) || header[KIND] != b'0' {
        return Err(broken());
    }
    let name = header[..MAX_NAME].split(|byte| *byte == 0).next().unwrap_or_default();
    let size = match header[SIZE.start] {
        0x80 => {
            let bytes = header[SIZE.end - 8..SIZE.end].try_into().map_err(|_| broken())?;
            Some(u64::from_be_bytes(bytes))
        }
        _ => octal(&header[SIZE]),
    };
    let name = std::str::from_utf8(name).map_err(|_| broken())?;
    Ok(Some((name.to_owned(), size.ok_or_else(broken)?)))
}

/// Bytes from the end of a file to the next block.
pub(super) fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
}

/// The sum of all bytes, its own field counted as spaces.
fn checksum(header: &[u8]) -> u64 {
    let byte = |(at, byte): (usize, &u8)| u64::from(if CHECKSUM.contains(&at) { b' ' } else { *byte });
    header.iter().enumerate().map(byte).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_whole() {
        for size in [0, 1, 511, 7 << 30, OCTAL, 1 << 40] {
            let header = header("keys/mac.key", size, 1_700_000_000).unwrap();
            assert_eq!(parse(&header).unwrap(), Some(("keys/mac.key".to_owned(), size)));
        }
        assert!(header(&"x".repeat(101), 0, 0).is_err());
        assert_eq!(parse(&[0; 512]).unwrap(), None);
    }

    #[test]
    fn a_flipped_bit_is_seen() {
        let mut header = header("node.toml", 5, 0).unwrap();
        header[3] ^= 1;
        assert!(parse(&header).is_err());
        assert!(parse(b"short").is_err());
    }
}
