//! Messages that follow from their ids.

use bytes::Bytes;
use postrider_base::{Random, Timestamp};
use postrider_mail::{AccountId, EmailAddress, Envelope, MessageId, Recipient};
use postrider_spool::{Content, NewMessage, Origin};

const DOMAINS: [&str; 3] = ["a.test", "b.test", "c.test"];
/// Lengths of bodies, in bytes.
const LEAST: u64 = 2 << 10;
const MOST: u64 = 40 << 10;
/// What repeats in a body: a prime number of bytes.
const PATTERN: usize = 1021;

/// The message of this id.
#[must_use]
pub fn message(id: MessageId) -> NewMessage {
    NewMessage {
        id,
        account: AccountId::default(),
        accepted_at: id.timestamp(),
        expires_at: Timestamp::from_millis(u64::MAX),
        not_before: None,
        tls_optional: false,
        envelope: Envelope {
            sender: "sender@example.com".parse().ok(),
            recipients: recipients(id).into_iter().map(Recipient::new).collect(),
            ..Envelope::default()
        },
        origin: Origin { protocol: "ESMTPSA".to_owned(), ..Origin::default() },
        content: Content::from(body(id)),
    }
}

/// One to three recipients, some in one domain.
#[must_use]
pub fn recipients(id: MessageId) -> Vec<EmailAddress> {
    let [first, count, together, ..] = id.uuid().to_le_bytes();
    let step = usize::from(together % 2);
    let recipient = |index: usize| {
        let domain = DOMAINS[(usize::from(first) + index * step) % DOMAINS.len()];
        format!("r{index}@{domain}").parse().expect("these are addresses")
    };
    (0..usize::from(1 + count % 3)).map(recipient).collect()
}

/// 2 to 40 KB that look like no other message's, and in which no two sectors
/// are alike.
#[must_use]
pub fn body(id: MessageId) -> Bytes {
    let [low, high] = [id.uuid(), id.uuid() >> 64].map(|half| u64::try_from(half & u128::from(u64::MAX)));
    let random = Random::seeded(low.unwrap_or_default() ^ high.unwrap_or_default());
    let mut pattern = [0; PATTERN];
    random.fill(&mut pattern);
    let length = usize::try_from(LEAST + random.below(MOST - LEAST)).unwrap_or_default();
    let mut body = pattern.repeat(length.div_ceil(PATTERN));
    body.truncate(length);
    body.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_sectors_of_all_bodies_differ() {
        let ids = (0..5).map(|uuid| MessageId::new(1, Timestamp::from_millis(0), uuid));
        let bodies: Vec<Bytes> = ids.map(body).collect();
        let sectors: Vec<&[u8]> = bodies.iter().flat_map(|body| body.chunks_exact(512)).collect();
        assert_eq!(sectors.iter().collect::<BTreeSet<_>>().len(), sectors.len());
    }
}
