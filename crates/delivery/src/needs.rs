//! What a message needs of the host that it is handed to: extensions, and for
//! REQUIRETLS a session that is what it seems.

use postrider_mail::{BodyType, BounceKind, Envelope, MAX_HEADER_BYTES, header_of};
use postrider_smtp::{Features, LocalRefusal};
use postrider_spool::{Content, DueRecipient};

use crate::connection::Connection;
use crate::finding::Finding;
use crate::settings::{Limits, Settings};
use crate::target::{Kind, Target};
use crate::tls::{Level, Session};

/// A host, as far as messages have needs of it.
pub(crate) struct Host<'a> {
    features: &'a Features,
    /// Inside this process there is no wire that anybody could read.
    is_inside: bool,
    level: Level,
}

impl<'a> Host<'a> {
    pub(crate) fn new(target: &Target, connection: &'a Connection) -> Self {
        Self {
            features: connection.conversation.features(),
            is_inside: matches!(target.kind, Kind::BuiltIn(_)),
            level: connection.level,
        }
    }

    /// Whether the host passes a message on by the rules of REQUIRETLS, and is
    /// the host that was meant (RFC 8689 section 4.2.1).
    fn keeps_requirement(&self) -> bool {
        self.features.require_tls && self.level.is_proved()
    }

    /// What keeps a message from being handed to this host, where the
    /// conversation itself would not refuse it. Another host may take it.
    pub(crate) fn obstacle(&self, envelope: &Envelope, settings: &Settings) -> Option<Finding> {
        if requires_tls(envelope) && !self.is_inside && !self.keeps_requirement() {
            return Some(no_require_tls(match (self.features.require_tls, self.level.session) {
                (false, _) => "The host does not offer REQUIRETLS inside TLS",
                (true, Session::Authenticated) => {
                    "Neither DNSSEC nor MTA-STS proves that the host is the domain's (REQUIRETLS)"
                }
                (true, _) => "The host's certificate cannot be verified (REQUIRETLS)",
            }));
        }
        let is_eight_bit = envelope.body == BodyType::EightBitMime;
        let is_refused = is_eight_bit && settings.strict_8bitmime && !self.features.eight_bit_mime;
        is_refused.then(|| {
            let text = "The host does not take 8-bit content (8BITMIME)";
            Finding::unsupported(BounceKind::TransientContentRejected, (5, 6, 3), text)
        })
    }

    /// Puts those first who go into the next transaction, and says how many:
    /// at a host without SMTPUTF8 an international address, which it can not
    /// be told of (RFC 6531 section 3.2), must not keep the others from their
    /// mail.
    pub(crate) fn gather(&self, envelope: &Envelope, pending: &mut [DueRecipient]) -> usize {
        if self.features.smtp_utf8 {
            return pending.len();
        }
        let is_international = |due: &DueRecipient| {
            let recipient = envelope.recipients.get(usize::from(due.index));
            recipient.is_some_and(|recipient| !recipient.address.is_ascii())
        };
        pending.sort_by_key(is_international);
        match pending.partition_point(|due| !is_international(due)) {
            0 => pending.len(),
            plain => plain,
        }
    }

    /// How many recipients go into one transaction: no more than the host says
    /// that it takes (RCPTMAX, RFC 9422 section 4.2).
    pub(crate) fn recipients(&self, limits: &Limits) -> usize {
        let most = self.features.max_recipients.and_then(|most| usize::try_from(most).ok());
        most.unwrap_or(usize::MAX).clamp(1, limits.recipients_per_transaction)
    }

    /// The envelope of a transaction with this host, for these recipients.
    pub(crate) fn envelope<'d>(
        &self,
        whole: &Envelope,
        due: impl Iterator<Item = &'d DueRecipient>,
        content: &Content,
    ) -> Envelope {
        let recipients = due.filter_map(|due| whole.recipients.get(usize::from(due.index)).cloned()).collect();
        Envelope {
            sender: whole.sender.clone(),
            recipients,
            body: whole.body,
            smtp_utf8: whole.smtp_utf8 && (self.features.smtp_utf8 || !is_header_ascii(content)),
            ret: whole.ret,
            envid: whole.envid.clone(),
            // A bounce goes on all the same (RFC 8689 section 5).
            require_tls: whole.require_tls && !self.is_inside && (requires_tls(whole) || self.keeps_requirement()),
        }
    }
}

/// Whether the message must not leave without REQUIRETLS. A bounce asks for it
/// and does not insist (RFC 8689 section 5).
pub(crate) fn requires_tls(envelope: &Envelope) -> bool {
    envelope.require_tls && envelope.sender.is_some()
}

/// Domains are in their ASCII form already, so what is left to need SMTPUTF8 is
/// a local part, which the conversation looks at, or the header.
fn is_header_ascii(content: &Content) -> bool {
    // Acceptance adds fields to a header within the bound.
    header_of(content.chunks(), 2 * MAX_HEADER_BYTES).is_ascii()
}

/// What the host's announcement says about the message.
pub(crate) fn refusal(refusal: LocalRefusal) -> Finding {
    match refusal {
        LocalRefusal::TooLarge { limit } => Finding::unsupported(
            BounceKind::TransientMessageTooLarge,
            (5, 3, 4),
            &format!("Message too large: the host takes {limit} bytes"),
        ),
        // RFC 6531 section 3.5
        LocalRefusal::SmtpUtf8NotOffered => Finding::unsupported(
            BounceKind::TransientGeneral,
            (5, 6, 7),
            "The host does not take international addresses (SMTPUTF8)",
        ),
        // RFC 3030 section 3
        LocalRefusal::BinaryMimeNotOffered => Finding::unsupported(
            BounceKind::TransientContentRejected,
            (5, 6, 3),
            "The host does not take binary content (BINARYMIME)",
        ),
        LocalRefusal::RequireTlsNotOffered => no_require_tls("The host does not offer REQUIRETLS inside TLS"),
    }
}

/// RFC 8689 section 4.2.1
fn no_require_tls(text: &str) -> Finding {
    Finding::unsupported(BounceKind::TransientGeneral, (5, 7, 30), text)
}
