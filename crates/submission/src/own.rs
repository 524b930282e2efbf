//! The relay's own mail: bounces and other notifications.

use postrider_mail::dsn::{self, DsnRequest, DsnWriter};
use postrider_mail::{
    AccountId, BodyType, EmailAddress, Envelope, MessageId, Notify, Recipient, quoted_printable, sanitize_text,
};
use postrider_spool::{Content, NewMessage, Origin, OriginKind};

use crate::{Refusal, Submission};

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

/// A short text that the relay writes to somebody.
#[derive(Clone, Debug)]
pub struct Letter<'a> {
    /// Whose account it belongs to.
    pub account: AccountId,
    /// To whom.
    pub to: &'a EmailAddress,
    /// What it is about, in ASCII.
    pub subject: &'a str,
    /// What it says; its lines end with a line feed.
    pub text: &'a str,
}

/// What the relay tells the sender of a message of its delivery (RFC 3464).
#[derive(Clone, Debug)]
pub struct Notification<'a> {
    /// Its id, from [`Submission::new_id`].
    pub id: MessageId,
    /// Whose account the message belongs to.
    pub account: AccountId,
    /// The message required TLS on its way.
    pub require_tls: bool,
    /// What is told.
    pub report: DsnRequest<'a>,
}

/// Longest subject, so that its line needs no folding (RFC 5322 section 2.1.1).
const MAX_SUBJECT: usize = 900;

impl Submission {
    /// Queues a letter from the relay itself. When this returns `Ok`, it is on disk.
    ///
    /// # Errors
    /// [`Refusal::NoRoom`] or [`Refusal::Unavailable`].
    pub async fn write(&self, letter: Letter<'_>) -> Result<MessageId, Refusal> {
        let id = self.new_id();
        let own = OwnMessage {
            id,
            account: letter.account,
            to: letter.to.clone(),
            kind: OriginKind::Operator,
            require_tls: false,
            content: self.compose(id, &letter),
        };
        self.send(own).await
    }

    /// Queues a message of the relay's own, signed. When this returns `Ok`, it is on disk.
    ///
    /// # Errors
    /// [`Refusal::NoRoom`] or [`Refusal::Unavailable`].
    pub async fn send(&self, own: OwnMessage) -> Result<MessageId, Refusal> {
        let id = own.id;
        let message = self.signed_own(self.own_message(own)).await;
        self.spool().accept(message).await?;
        Ok(id)
    }

    /// Writes a notification, for the caller to commit or to [send](Self::send). `None` where
    /// the operator's domain is none that mail can come from.
    #[must_use]
    pub fn notification(&self, about: &Notification<'_>) -> Option<OwnMessage> {
        let Notification { id, account, require_tls, report } = about;
        let from = format!("MAILER-DAEMON@{}", self.settings().operator_domain()).parse().ok()?;
        let writer = DsnWriter {
            reporting_mta: self.settings().hostname(),
            from: &from,
            message_id: &format!("{id}@{}", self.message_id_domain()),
            date: id.timestamp(),
            boundary: self.random().u128(),
        };
        Some(OwnMessage {
            id: *id,
            account: *account,
            to: report.to.clone(),
            kind: OriginKind::Dsn { of: report.id },
            require_tls: *require_tls,
            content: dsn::build(&writer, report),
        })
    }

    fn compose(&self, id: MessageId, letter: &Letter<'_>) -> Vec<u8> {
        let Letter { to, subject, text, .. } = letter;
        let text: String = text.lines().flat_map(|line| [line, "\r\n"]).collect();
        // In seven bits every host can take it.
        let (encoding, text) = match text.is_ascii() {
            true => ("7bit", text),
            false => ("quoted-printable", quoted_printable(text.as_bytes())),
        };
        let message = format!(
            "From: postrider <postrider@{}>\r\n\
             To: <{to}>\r\n\
             Date: {}\r\n\
             Message-ID: <{id}@{}>\r\n\
             Subject: {}\r\n\
             Auto-Submitted: auto-generated\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Transfer-Encoding: {encoding}\r\n\
             \r\n\
             {text}",
            self.settings().operator_domain(),
            id.timestamp().rfc5322(),
            self.message_id_domain(),
            sanitize_text(subject, MAX_SUBJECT),
        );
        message.into_bytes()
    }

    /// Makes a message of the relay's own ready for the spool, into which the caller
    /// commits it together with what caused it. Its sender is the null reverse-path, so
    /// that it never causes another (RFC 5321 section 4.5.5); for the same reason nobody
    /// is told what becomes of it. It counts as accepted now: its id may be much older, where
    /// it could not be queued before.
    #[must_use]
    pub fn own_message(&self, own: OwnMessage) -> NewMessage {
        let now = self.now();
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
