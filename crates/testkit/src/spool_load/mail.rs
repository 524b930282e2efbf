//! Messages that follow from their ids.

use bytes::Bytes;
use postrider_base::{Random, Timestamp};
use postrider_mail::{AccountId, EmailAddress, Envelope, MessageId, Recipient};
use postrider_spool::{Content, NewMessage, Origin};

const DOMAINS: [&str; 3] = ["a.test", "b.test", "c.test"];
/// Lengths of bodies, in bytes.
const LEAST: u64 = 2 << 10;
const MOST: u64 = 40 << 10;

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

/// 2 to 40 KB that look like nothing else.
#[must_use]
pub fn body(id: MessageId) -> Bytes {
    let [low, high] = [id.uuid(), id.uuid() >> 64].map(|half| u64::try_from(half & u128::from(u64::MAX)));
    let random = Random::seeded(low.unwrap_or_default() ^ high.unwrap_or_default());
    let length = LEAST + random.below(MOST - LEAST);
    let mut body = vec![0; usize::try_from(length).unwrap_or_default()];
    random.fill(&mut body);
    body.into()
}
