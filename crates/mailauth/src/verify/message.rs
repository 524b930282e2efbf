//! A message as those who sign it see it: raw header fields, and hashes of the body.

use aws_lc_rs::digest::{Context, Digest, SHA256};
use mail_auth::dkim::Canonicalization;
use memchr::memchr;

/// A header field as it stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub(crate) name: &'a [u8],
    /// All after the colon, with the line end.
    pub(crate) value: &'a [u8],
}

impl Field<'_> {
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name.trim_ascii_end().eq_ignore_ascii_case(name.as_bytes())
    }
}

/// A message split into its header fields and its body.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub(crate) fields: Vec<Field<'a>>,
    body: &'a [u8],
    /// Octets of the body that signatures cover, in their order, each once.
    limits: Vec<u64>,
    /// By form: simple, relaxed.
    hashes: [Option<Hashes>; 2],
}

/// The hash of a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyHash {
    pub(crate) digest: Digest,
    /// The length of the body in canonical form, whole.
    pub(crate) length: u64,
}

impl<'a> Message<'a> {
    /// Splits a message with CRLF line ends. A line that is no field ends the header. None when
    /// there are more than `most` fields.
    pub(crate) fn split(message: &'a [u8], most: usize) -> Option<Message<'a>> {
        let mut fields = Vec::new();
        let mut rest = message;
        while let Some(length) = field_length(rest) {
            if fields.len() == most {
                return None;
            }
            let (field, behind) = rest.split_at(length);
            let colon = memchr(b':', field)?;
            fields.push(Field { name: &field[..colon], value: &field[colon + 1..] });
            rest = behind;
        }
        let body = rest.strip_prefix(b"\r\n").unwrap_or(rest);
        Some(Message { fields, body, limits: Vec::new(), hashes: [None, None] })
    }

    /// Octets of all fields.
    pub(crate) fn header_size(&self) -> usize {
        self.fields.iter().map(|field| field.name.len() + 1 + field.value.len()).sum()
    }

    /// The fields of a name, from the top.
    pub(crate) fn all<'s>(&'s self, name: &'s str) -> impl DoubleEndedIterator<Item = Field<'a>> + 's {
        self.fields.iter().copied().filter(move |field| field.is(name))
    }

    /// The fields that a signature names, from the bottom up, each at most once; a name that
    /// there are no more fields of stands for nothing (RFC 6376 section 5.4.2).
    pub(crate) fn signed(&self, names: &[String]) -> Vec<Field<'a>> {
        let mut taken: Vec<(&str, usize)> = Vec::new();
        let mut signed = Vec::new();
        for name in names {
            let place = taken.iter().position(|(known, _)| known.eq_ignore_ascii_case(name));
            let place = place.unwrap_or_else(|| {
                taken.push((name, 0));
                taken.len() - 1
            });
            if let Some(field) = self.all(name).rev().nth(taken[place].1) {
                taken[place].1 += 1;
                signed.push(field);
            }
        }
        signed
    }

    /// Says which beginnings of the body signatures cover (`l=`): [`Message::body_hash`] knows
    /// these.
    pub(crate) fn expect_limits(&mut self, mut limits: Vec<u64>) {
        limits.sort_unstable();
        limits.dedup();
        self.limits = limits;
    }

    /// The SHA-256 hash of the body in a canonical form, of its first `limit` octets if given
    /// (RFC 6376 section 3.7). However many limits there are, the body is read once for each
    /// form, and others have their turn meanwhile.
    pub(crate) async fn body_hash(&mut self, form: Canonicalization, limit: Option<u64>) -> BodyHash {
        let known = &mut self.hashes[usize::from(form == Canonicalization::Relaxed)];
        let Hashes { whole, beginnings } = match known {
            Some(known) => known,
            None => {
                let mut hasher = BodyHasher::new(&self.limits);
                match form {
                    Canonicalization::Simple => simple_body(self.body, &mut hasher).await,
                    Canonicalization::Relaxed => relaxed_body(self.body, &mut hasher).await,
                }
                known.insert(hasher.finish())
            }
        };
        let beginning = beginnings.iter().find(|(known, _)| Some(*known) == limit);
        BodyHash { digest: beginning.map_or(whole.digest, |(_, digest)| *digest), length: whole.length }
    }
}

/// The hashes of a body in one canonical form.
#[derive(Debug)]
struct Hashes {
    whole: BodyHash,
    /// Of its first octets, by how many; of those limits alone that it reaches.
    beginnings: Vec<(u64, Digest)>,
}

struct BodyHasher<'l> {
    context: Context,
    length: u64,
    /// Limits that are not reached yet, in their order.
    limits: &'l [u64],
    beginnings: Vec<(u64, Digest)>,
    /// Octets read since others had their turn.
    in_a_row: usize,
}

/// Octets that are hashed in a row: some milliseconds, whatever they are.
const MOST_IN_A_ROW: usize = 256 * 1024;

impl<'l> BodyHasher<'l> {
    fn new(limits: &'l [u64]) -> Self {
        Self { context: Context::new(&SHA256), length: 0, limits, beginnings: Vec::new(), in_a_row: 0 }
    }

    fn write(&mut self, mut bytes: &[u8]) {
        while let Some((limit, later)) = self.limits.split_first() {
            let room = usize::try_from(limit - self.length).unwrap_or(usize::MAX);
            let Some((before, behind)) = bytes.split_at_checked(room) else { break };
            self.update(before);
            self.beginnings.push((*limit, self.context.clone().finish()));
            (bytes, self.limits) = (behind, later);
        }
        self.update(bytes);
    }

    fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// So many octets of the body were read: lets others have their turn now and then.
    async fn read(&mut self, octets: usize) {
        self.in_a_row += octets;
        if self.in_a_row >= MOST_IN_A_ROW {
            self.in_a_row = 0;
            tokio::task::yield_now().await;
        }
    }

    fn finish(self) -> Hashes {
        let whole = BodyHash { digest: self.context.finish(), length: self.length };
        Hashes { whole, beginnings: self.beginnings }
    }
}

/// RFC 6376 section 3.4.3: empty lines at the end are one line end, and so is no body.
async fn simple_body(body: &[u8], hasher: &mut BodyHasher<'_>) {
    let mut kept = body;
    while let Some(shorter) = kept.strip_suffix(b"\r\n") {
        kept = shorter;
    }
    for piece in kept.chunks(MOST_IN_A_ROW) {
        hasher.write(piece);
        hasher.read(piece.len()).await;
    }
    hasher.write(b"\r\n");
}

/// RFC 6376 section 3.4.4. Space at the end of lines goes first, so that lines of nothing but
/// space are empty, and go at the end as empty lines do: mail-auth's form keeps them, which
/// makes good signatures fail.
async fn relaxed_body(body: &[u8], hasher: &mut BodyHasher<'_>) {
    let mut empty = 0;
    let mut rest = body;
    while !rest.is_empty() {
        let end = find_line_end(rest);
        let line = trim_space_end(&rest[..end]);
        rest = rest.get(end + 2..).unwrap_or_default();
        hasher.read(end + 2 - line.len()).await;
        if line.is_empty() {
            empty += 1;
            continue;
        }
        for _ in 0..std::mem::take(&mut empty) {
            hasher.write(b"\r\n");
            hasher.read(2).await;
        }
        let mut words = line;
        while !words.is_empty() {
            let space = words.iter().position(|b| is_space(*b)).unwrap_or(words.len());
            hasher.write(&words[..space]);
            let after = words[space..].iter().position(|b| !is_space(*b)).unwrap_or(words.len() - space);
            if after > 0 {
                hasher.write(b" ");
            }
            words = &words[space + after..];
            hasher.read(space + after).await;
        }
        hasher.write(b"\r\n");
    }
}

fn is_space(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn trim_space_end(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|b| !is_space(*b)).map_or(0, |last| last + 1);
    &line[..end]
}

/// Where the first CRLF begins, or the end.
fn find_line_end(bytes: &[u8]) -> usize {
    let mut from = 0;
    while let Some(at) = memchr(b'\r', &bytes[from..]) {
        if bytes.get(from + at + 1) == Some(&b'\n') {
            return from + at;
        }
        from += at + 1;
    }
    bytes.len()
}

/// The length of the field at the start with its folded lines; none at the end of the header.
fn field_length(bytes: &[u8]) -> Option<usize> {
    let first = find_line_end(bytes);
    let colon = memchr(b':', &bytes[..first])?;
    if bytes[..colon].trim_ascii_end().is_empty() || !bytes[..colon].trim_ascii_end().iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let mut end = (first + 2).min(bytes.len());
    while bytes.get(end).is_some_and(|b| is_space(*b)) {
        end = (end + find_line_end(&bytes[end..]) + 2).min(bytes.len());
    }
    Some(end)
}

/// The value of a signature's field with the value of its `b=` tag empty, without the final
/// line end (RFC 6376 section 3.7).
pub(crate) fn without_signature(value: &[u8]) -> Vec<u8> {
    let value = value.strip_suffix(b"\r\n").unwrap_or(value);
    let mut bare = Vec::with_capacity(value.len());
    for (index, tag) in value.split(|b| *b == b';').enumerate() {
        if index > 0 {
            bare.push(b';');
        }
        let equals = memchr(b'=', tag).filter(|at| tag[..*at].trim_ascii().eq_ignore_ascii_case(b"b"));
        bare.extend_from_slice(equals.map_or(tag, |at| &tag[..=at]));
    }
    bare
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn hash(body: &[u8], form: Canonicalization) -> Vec<u8> {
        let message = [b"From: a@b\r\n\r\n", body].concat();
        Message::split(&message, 10).unwrap().body_hash(form, None).await.digest.as_ref().to_vec()
    }

    fn sha256(bytes: &[u8]) -> Vec<u8> {
        aws_lc_rs::digest::digest(&SHA256, bytes).as_ref().to_vec()
    }

    /// RFC 6376 sections 3.4.3 to 3.4.5
    #[tokio::test]
    async fn bodies_in_canonical_form() {
        let relaxed = [
            (&b" C \r\nD \t E\r\n\r\n\r\n"[..], &b" C\r\nD E\r\n"[..]),
            (b"", b""),
            (b"\r\n \t\r\n\r\n", b""),
            (b"a\r\n \r\n\t\r\n", b"a\r\n"),
            (b"a\r\n \r\nb", b"a\r\n\r\nb\r\n"),
            (b"a\rb\n \r\n", b"a\rb\n\r\n"),
            (b"a  \t", b"a\r\n"),
        ];
        for (body, canonical) in relaxed {
            assert_eq!(hash(body, Canonicalization::Relaxed).await, sha256(canonical), "{}", body.escape_ascii());
        }
        let simple = [
            (&b" C \r\nD \t E\r\n\r\n\r\n"[..], &b" C \r\nD \t E\r\n"[..]),
            (b"", b"\r\n"),
            (b"a", b"a\r\n"),
            (b"a\r\n \r\n", b"a\r\n \r\n"),
        ];
        for (body, canonical) in simple {
            assert_eq!(hash(body, Canonicalization::Simple).await, sha256(canonical), "{}", body.escape_ascii());
        }
    }

    #[tokio::test]
    async fn each_form_is_hashed_once_whatever_the_limits_are() {
        let text = b"From: a@b\r\n\r\nD \t E\r\n\r\nF\r\n";
        let mut message = Message::split(text, 10).unwrap();
        message.expect_limits(vec![9, 0, 4, 4, 8, u64::MAX]);
        for (form, canonical) in [
            (Canonicalization::Simple, &b"D \t E\r\n\r\nF\r\n"[..]),
            (Canonicalization::Relaxed, &b"D E\r\n\r\nF\r\n"[..]),
        ] {
            for limit in [Some(4), None, Some(0), Some(9), Some(8), Some(u64::MAX)] {
                let hash = message.body_hash(form, limit).await;
                let most = limit.map_or(canonical.len(), |limit| canonical.len().min(usize::try_from(limit).unwrap()));
                assert_eq!(hash.digest.as_ref(), sha256(&canonical[..most]), "{form:?} {limit:?}");
                assert_eq!(hash.length, canonical.len() as u64);
                // What is hashed already does not read the body any more.
                message.body = b"";
            }
            message.body = b"D \t E\r\n\r\nF\r\n";
        }
    }

    #[tokio::test]
    async fn others_have_their_turn_while_a_long_body_is_hashed() {
        for line in ["x y\r\n", "\r\n", "no line end ", "xxxxxxxxxxxxxxxxxxxxxxxx\r\n"] {
            let text = format!("From: a@b\r\n\r\n{}.\r\n", line.repeat(4 * MOST_IN_A_ROW / line.len()));
            for form in [Canonicalization::Simple, Canonicalization::Relaxed] {
                let mut message = Message::split(text.as_bytes(), 10).unwrap();
                let hashed = message.body_hash(form, None);
                let mut hashed = std::pin::pin!(hashed);
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                let turns = std::iter::from_fn(|| hashed.as_mut().poll(&mut context).is_pending().then_some(()));
                assert!(turns.count() >= 3, "{line:?} {form:?}");
            }
        }
    }

    #[test]
    fn headers_end_and_fold() {
        let bytes = b"A: b\r\n c\r\nd : e\r\n\r\nBody: x\r\n";
        let message = Message::split(bytes, 2).unwrap();
        assert_eq!(message.fields[0], Field { name: b"A", value: b" b\r\n c\r\n" });
        assert!(message.fields[1].is("D") && message.fields.len() == 2);
        assert_eq!(message.body, b"Body: x\r\n");
        assert!(Message::split(bytes, 1).is_none());
        for broken in [&b""[..], b"\r\n", b"no field", b": x\r\n", b"a b: c\r\n", b"a:"] {
            assert!(Message::split(broken, 9).is_some_and(|message| message.fields.len() <= 1));
        }
    }

    #[test]
    fn the_lowest_fields_are_signed_first() {
        let message = Message::split(b"X: 1\r\nY: 2\r\nX: 3\r\n\r\n", 9).unwrap();
        let names = ["x", "Y", "X", "x", "z"].map(str::to_owned);
        let values: Vec<_> = message.signed(&names).iter().map(|field| field.value[1]).collect();
        assert_eq!(values, b"321");
    }

    #[test]
    fn only_the_signature_goes() {
        assert_eq!(without_signature(b" v=1; b = abc\r\n def; bh=b; x=b=c;\r\n"), b" v=1; b =; bh=b; x=b=c;");
        assert_eq!(without_signature(b" b="), b" b=");
    }
}
