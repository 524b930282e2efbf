//! The header block, and what acceptance does to it.

use postrider_mail::HeaderBlock;
use postrider_submission::internal::rewrite_header;

/// A message's header: parsing loses no byte; what acceptance makes of it
/// parses again, names each thing once, keeps no field that is to be taken
/// off, and leaves the body alone.
pub fn header(data: &[u8]) {
    let Ok(block) = HeaderBlock::parse(data) else { return };
    let raw: Vec<u8> = block.fields().flat_map(|field| field.raw()).copied().collect();
    assert_eq!(raw, data[..raw.len()], "the fields are not the header's bytes");
    assert!(block.body_offset() <= data.len());

    // The decoder has made every line end CRLF before acceptance sees it.
    if data.contains(&0) || String::from_utf8_lossy(data).replace("\r\n", "").contains(['\r', '\n']) {
        return;
    }
    let Some(written) = rewrite_header(data) else { return };
    let again = HeaderBlock::parse(&written).expect("what we wrote can be read");
    assert!(again.is_separated(), "no blank line behind the header");
    assert_eq!(&written[again.body_offset()..], &data[block.body_offset()..], "the body changed");
    for name in ["Date", "Message-ID"] {
        assert_eq!(again.find_all(name).count(), 1, "{name}");
    }
    for field in again.fields() {
        let name = String::from_utf8_lossy(field.name()).trim().to_ascii_lowercase();
        assert!(name != "bcc" && name != "return-path" && !name.starts_with("x-ses-"), "{name} was kept");
    }
}
