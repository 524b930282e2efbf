//! The relay's own mail: bounces and other notifications.

use postrider_mail::{AccountId, BodyType, EmailAddress, Envelope, MessageId, Notify, Recipient};
use postrider_spool::{Content, NewMessage, Origin, OriginKind};

use crate::Submission;

/// A message that the relay writes.
#[derive(Clone, Debug)]
pub struct OwnMessage {
    /// Its id, from [`Submission::new_id`], which its `Message-ID` has been made from.
    pub id: MessageId,
    /// Whose account it belongs to.
    pub account: AccountId,
    /// Its only recipient.
    pub to: EmailAddress,
    /// Why it is written.
    pub kind: OriginKind,
    /// It tells of a message that required TLS on its way, so it does too (RFC 8689
    /// section 5).
    pub require_tls: bool,
    /// Header and body, complete.
    pub content: Vec<u8>,
}

impl Submission {
    /// Makes a message of the relay's own ready for the spool, into which the caller
    /// commits it together with what caused it. Its sender is the null reverse-path, so
    /// that it never causes another (RFC 5321 section 4.5.5); for the same reason nobody
    /// is told what becomes of it.
    #[must_use]
    pub fn own_message(&self, own: OwnMessage) -> NewMessage {
        let now = own.id.timestamp();
        let recipient = Recipient { notify: Notify::NEVER, ..Recipient::new(own.to) };
        let body = if own.content.is_ascii() { BodyType::SevenBit } else { BodyType::EightBitMime };
        NewMessage {
            id: own.id,
            account: own.account,
            accepted_at: now,
            expires_at: now.saturating_add(self.settings().expiry.as_duration()),
            not_before: None,
            tls_optional: false,
            envelope: Envelope {
                sender: None,
                smtp_utf8: !recipient.address.is_ascii(),
                recipients: vec![recipient],
                body,
                require_tls: own.require_tls,
                ..Envelope::default()
            },
            origin: Origin { protocol: "local".to_owned(), kind: own.kind, ..Origin::default() },
            content: Content::from(own.content),
        }
    }
}
