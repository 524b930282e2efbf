//! A batch on its way to the disk, and the index of batches that a footer is.

use bytes::{Buf, BufMut, Bytes};
use postrider_base::DiskFile;
use smallvec::SmallVec;

use crate::format::{self, BATCH_HEADER, BatchHeader, DATA_START, FOOTER_OFFSET, Seed, TRAILER, Trailer};
use crate::{Committed, Entry, Error, Lsn, Replayed};

/// A batch that is encoded but for its place. Made on the caller's thread, so
/// that the checksums of the bodies are not the log thread's work.
#[derive(Debug)]
pub struct Batch {
    /// Header (blank until the batch is placed), table and heads.
    prefix: Vec<u8>,
    header: BatchHeader,
    bodies: Vec<Bytes>,
}

/// A batch that has its place.
#[derive(Debug)]
pub(crate) struct Placed {
    /// Header, table and heads.
    pub(crate) prefix: Bytes,
    bodies: Vec<Bytes>,
}

impl Batch {
    pub(crate) fn new<I>(entries: I, segment_bytes: u64) -> Result<Self, Error>
    where
        I: IntoIterator<Item = Entry, IntoIter: ExactSizeIterator>,
    {
        let entries = entries.into_iter();
        let count = u16::try_from(entries.len()).map_err(|_| Error::TooLarge("more than 65,535 entries"))?;
        let table = BATCH_HEADER + format::table_len(entries.len());
        let mut prefix = Vec::with_capacity(table + ROOM * entries.len());
        prefix.resize(table, 0);
        let (mut bodies, mut bodies_len, mut row) = (Vec::new(), 0, BATCH_HEADER);
        for Entry { kind, head, body } in entries {
            let head_len = u32::try_from(head.len())
                .ok()
                .filter(|_| head.len() <= Entry::MAX_HEAD)
                .ok_or(Error::TooLarge("a head over 1 MiB"))?;
            let len: u64 = body.iter().map(|part| part.len() as u64).sum();
            let body_len = u32::try_from(len).map_err(|_| Error::TooLarge("a body of 4 GiB or more"))?;
            row += format::put_table_entry(&mut prefix[row..], kind, head_len, body_len, checksum(&body));
            prefix.put_slice(&head);
            bodies_len += len;
            match bodies.is_empty() {
                true => bodies = body,
                false => bodies.extend(body),
            }
        }
        bodies.retain(|part| !part.is_empty());
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
        let batch = Self { prefix, header, bodies };
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

    /// Fills in what is known once its place is; `feed` gets its entries.
    pub(crate) fn place(self, place: Place, feed: &mut Vec<Replayed>) -> (Placed, Committed) {
        let Self { mut prefix, header, bodies } = self;
        let Place { seed, offset, lsn, synced, oldest } = place;
        let header = BatchHeader { lsn, synced, oldest, ..header };
        header.encode_into(&mut prefix, seed, offset);
        let prefix = Bytes::from(prefix);
        let mut locations = SmallVec::new();
        let whole = header.each_entry(&prefix.slice(BATCH_HEADER..), seed, offset, |entry| {
            locations.push(entry.location);
            feed.push(entry);
        });
        debug_assert!(whole.is_some(), "a batch that was made wrongly");
        (Placed { prefix, bodies }, Committed { lsn: Lsn::new(lsn), locations })
    }
}

/// Where a batch comes to lie, and what its header says of the log then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) seed: Seed,
    pub(crate) offset: u64,
    pub(crate) lsn: u64,
    pub(crate) synced: u64,
    pub(crate) oldest: u64,
}

impl Placed {
    /// What to write.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&self.prefix[..]).chain(self.bodies.iter().map(|part| &part[..]))
    }
}

/// Room that most heads need at most.
const ROOM: usize = 112;

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

/// What ends a segment: footer and trailer, to be written so that they end where
/// the file does.
#[derive(Debug)]
pub(crate) struct Seal {
    footer: Bytes,
    pub(crate) trailer: Trailer,
    encoded: [u8; TRAILER],
}

impl Seal {
    /// Of a segment with these batches; `oldest` is the oldest segment in use.
    pub(crate) fn new(
        footer: Bytes,
        seed: Seed,
        file_bytes: u64,
        (first_lsn, next_lsn): (u64, u64),
        oldest: u64,
    ) -> Self {
        let trailer_at = file_bytes - TRAILER as u64;
        let footer_len = footer.len() as u64;
        let footer_offset = trailer_at - footer_len;
        let footer_crc = format::crc(&footer);
        let trailer = Trailer { footer_offset, footer_len, footer_crc, first_lsn, next_lsn, oldest };
        Self { footer, trailer, encoded: trailer.encode(seed, trailer_at) }
    }

    pub(crate) fn write(&self, file: &dyn DiskFile) -> std::io::Result<()> {
        file.write_all_vectored_at(&[&self.footer, &self.encoded], self.trailer.footer_offset)
    }
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
