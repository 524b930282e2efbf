//! What an NSEC3 record says of a name (RFC 5155).

use hickory_proto::dnssec::rdata::NSEC3;
use hickory_proto::rr::Name;

/// Repeated hashes that are gone along with. Zones that want more are answered
/// as if they were not signed (RFC 9276 section 3.2).
pub(crate) const MOST_ITERATIONS: u16 = 100;

/// Where a name is to a record, in the order of hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The record is the name's own.
    Matched,
    /// No name between the record's and the next exists, and this is one of them.
    Covered,
    /// Nothing is said.
    Elsewhere,
}

/// What the record at `owner` says of `name`, which must be in the same zone.
pub(crate) fn place(owner: &Name, record: &NSEC3, name: &Name) -> Place {
    let hashed = (record.iterations() <= MOST_ITERATIONS)
        .then(|| record.hash_algorithm().hash(record.salt(), name, record.iterations()).ok());
    let previous = owner.iter().next().and_then(decoded);
    let (Some(Some(hash)), Some(previous)) = (hashed, previous) else { return Place::Elsewhere };
    let (previous, hash, next) = (previous.as_slice(), hash.as_ref(), record.next_hashed_owner_name());
    let is_last = next <= previous;
    let is_between = if is_last { previous < hash || hash < next } else { previous < hash && hash < next };
    match (previous == hash, is_between) {
        (true, _) => Place::Matched,
        (false, true) => Place::Covered,
        (false, false) => Place::Elsewhere,
    }
}

/// A hash from its text: base32 with the extended alphabet (RFC 4648 section 7).
fn decoded(label: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut pending) = (Vec::with_capacity(20), 0u32, 0u32);
    for character in label {
        let digit = char::from(*character).to_digit(32)?;
        (bits, pending) = ((bits << 5 | digit) & 0xfff, pending + 5);
        if pending >= 8 {
            pending -= 8;
            bytes.push(u8::try_from(bits >> pending & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::dnssec::Nsec3HashAlgorithm;

    /// RFC 5155 appendix A: the zone `example`, 12 iterations, salt aabbccdd.
    fn record(next: &str) -> NSEC3 {
        let (salt, next) = (vec![0xaa, 0xbb, 0xcc, 0xdd], decoded(next.as_bytes()).unwrap());
        NSEC3::new(Nsec3HashAlgorithm::SHA1, false, 12, salt, next, [])
    }

    fn said(owner: &str, next: &str, of: &str) -> Place {
        let name = |text: &str| Name::from_ascii(text).unwrap();
        place(&name(&format!("{owner}.example.")), &record(next), &name(of))
    }

    #[test]
    fn the_examples_of_the_rfc() {
        let (first, second) = ("0p9mhaveqvm6t7vbl5lop2u3t2rp3tom", "2t7b4g4vsa5smi47k61mv5bv1a22bojr");
        assert_eq!(said(first, second, "example."), Place::Matched);
        assert_eq!(said(&first.to_uppercase(), second, "EXAMPLE."), Place::Matched);
        // Appendix B.1: c.x.w.example is covered.
        assert_eq!(said(first, second, "c.x.w.example."), Place::Covered);
        assert_eq!(said(first, second, "a.example."), Place::Elsewhere);
        // The last record of the chain leads back to the first.
        assert_eq!(said("t644ebqk9bibcna874givr6joj62mlhv", first, "x.w.example."), Place::Elsewhere);
        // A chain of one covers all but itself.
        assert_eq!(said(first, first, "example."), Place::Matched);
        assert_eq!(said(first, first, "a.example."), Place::Covered);
    }

    #[test]
    fn what_is_no_hash_says_nothing() {
        let next = "2t7b4g4vsa5smi47k61mv5bv1a22bojr";
        assert_eq!(said("_-", next, "example."), Place::Elsewhere);
        let slow = NSEC3::new(Nsec3HashAlgorithm::SHA1, true, MOST_ITERATIONS + 1, vec![], vec![0; 20], []);
        let name = Name::from_ascii("example.").unwrap();
        assert_eq!(place(&Name::from_ascii("00.example.").unwrap(), &slow, &name), Place::Elsewhere);
    }
}
