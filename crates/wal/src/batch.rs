//! A batch on its way to the disk, and the index of batches that a footer is.

use bytes::{Buf, BufMut, Bytes};

use crate::format::{self, BATCH_HEADER, BatchHeader, DATA_START, FOOTER_OFFSET, Seed, TRAILER, Trailer};
use crate::{Committed, Entry, Error, Location, Lsn, Replayed};

/// A batch that is encoded but for its place. Made on the caller's thread, so
/// that the checksums of the bodies are not the log thread's work.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Header (blank until the batch is placed), table and heads.
    prefix: Vec<u8>,
    header: BatchHeader,
    entries: Vec<Encoded>,
    bodies: Vec<Bytes>,
}

#[derive(Debug)]
struct Encoded {
    kind: u8,
    head: Bytes,
    body_len: u32,
    body_crc: u32,
}

impl Batch {
    pub(crate) fn new(entries: Vec<Entry>, segment_bytes: u64) -> Result<Self, Error> {
        let count = u16::try_from(entries.len()).map_err(|_| Error::TooLarge("more than 65,535 entries"))?;
        let heads: usize = entries.iter().map(|entry| entry.head.len()).sum();
        let table = BATCH_HEADER + format::table_len(entries.len());
        let mut prefix = Vec::with_capacity(table + heads);
        prefix.resize(BATCH_HEADER, 0);
        let mut bodies = Vec::with_capacity(entries.iter().map(|entry| entry.body.len()).sum());
        let mut bodies_len = 0;
        let mut encoded = Vec::with_capacity(entries.len());
        for Entry { kind, head, body } in entries {
            let head_len = u32::try_from(head.len())
                .ok()
                .filter(|_| head.len() <= Entry::MAX_HEAD)
                .ok_or(Error::TooLarge("a head over 1 MiB"))?;
            let len: u64 = body.iter().map(|part| part.len() as u64).sum();
            let body_len = u32::try_from(len).map_err(|_| Error::TooLarge("a body of 4 GiB or more"))?;
            let body_crc = checksum(&body);
            format::put_table_entry(&mut prefix, kind, head_len, body_len, body_crc);
            bodies_len += len;
            bodies.extend(body.into_iter().filter(|part| !part.is_empty()));
            encoded.push(Encoded { kind, head, body_len, body_crc });
        }
        for entry in &encoded {
            prefix.put_slice(&entry.head);
        }
        let heads_len =
            u32::try_from(prefix.len() - BATCH_HEADER).map_err(|_| Error::TooLarge("heads of 4 GiB or more"))?;
        let header = BatchHeader {
            entries: count,
            heads_len,
            bodies_len,
            lsn: 0,
            synced: 0,
            oldest: 0,
            heads_crc: format::crc(&prefix[BATCH_HEADER..]),
        };
        let batch = Self { prefix, header, entries: encoded, bodies };
        let alone = DATA_START + batch.len() + batch.footer_len() + TRAILER as u64;
        if alone > segment_bytes {
            return Err(Error::TooLarge("larger than a segment"));
        }
        Ok(batch)
    }

    /// Length on disk.
    pub(crate) fn len(&self) -> u64 {
        self.header.len()
    }

    /// Length of its copy in the footer.
    pub(crate) fn footer_len(&self) -> u64 {
        FOOTER_OFFSET as u64 + self.header.prefix_len()
    }

    /// How many vectors a write of it takes.
    pub(crate) fn vectors(&self) -> usize {
        1 + self.bodies.len()
    }

    /// Fills in what is known once its place is.
    pub(crate) fn place(&mut self, seed: Seed, offset: u64, lsn: u64, synced: u64, oldest: u64) {
        self.header = BatchHeader { lsn, synced, oldest, ..self.header };
        self.header.encode_into(&mut self.prefix, seed, offset);
    }

    /// Header, table and heads of a placed batch.
    pub(crate) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// What to write.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&self.prefix[..]).chain(self.bodies.iter().map(|part| &part[..]))
    }

    /// What its owner gets, and what the feed does.
    pub(crate) fn placed(&self, segment: u64, offset: u64) -> (Committed, Vec<Replayed>) {
        let lsn = Lsn::new(self.header.lsn);
        let mut at = offset + self.header.prefix_len();
        let mut locations = Vec::with_capacity(self.entries.len());
        let mut replayed = Vec::with_capacity(self.entries.len());
        for (index, entry) in (0..self.header.entries).zip(&self.entries) {
            let location = Location { segment, offset: at, len: entry.body_len, crc: entry.body_crc };
            at += u64::from(entry.body_len);
            locations.push(location);
            replayed.push(Replayed { lsn, index, kind: entry.kind, head: entry.head.clone(), location });
        }
        (Committed { lsn, locations }, replayed)
    }
}

/// CRC-32 of a body in parts.
pub(crate) fn checksum(parts: &[Bytes]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// One batch as a footer lists it: its place, header, table and heads.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) offset: u64,
    pub(crate) header: BatchHeader,
    pub(crate) heads: Bytes,
}

/// Adds a batch to the footer of its segment.
pub(crate) fn put_footer(footer: &mut Vec<u8>, offset: u64, prefix: &[u8]) {
    footer.put_u64_le(offset);
    footer.put_slice(prefix);
}

/// Ends a segment: its footer and trailer, to be written so that they end
/// where the file does. Fills in what the trailer says of the footer.
pub(crate) fn seal(mut footer: Vec<u8>, seed: Seed, file_bytes: u64, trailer: &mut Trailer) -> (u64, Vec<u8>) {
    let trailer_at = file_bytes - TRAILER as u64;
    trailer.footer_len = footer.len() as u64;
    trailer.footer_offset = trailer_at - trailer.footer_len;
    trailer.footer_crc = format::crc(&footer);
    footer.put_slice(&trailer.encode(seed, trailer_at));
    (trailer.footer_offset, footer)
}

/// The batches of a footer, in order; ends early where it is damaged.
pub(crate) fn listed(mut footer: Bytes, seed: Seed) -> impl Iterator<Item = Listed> {
    std::iter::from_fn(move || {
        let offset = footer.try_get_u64_le().ok()?;
        let header = BatchHeader::decode(&footer, seed, offset).ok()??;
        let prefix = usize::try_from(header.prefix_len()).ok()?;
        if footer.len() < prefix {
            return None;
        }
        let heads = footer.split_to(prefix).slice(BATCH_HEADER..);
        Some(Listed { offset, header, heads })
    })
}
