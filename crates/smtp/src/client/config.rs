//! How to talk to a host.

use std::fmt;
use std::time::Duration;

/// What a conversation needs to know beforehand.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// What the host speaks.
    pub protocol: Protocol,
    /// Our name in EHLO: a host name or an address literal (RFC 5321 section 4.1.1.1).
    pub hello: String,
    /// What is asked of TLS.
    pub tls: TlsUse,
    /// Whom to authenticate as; the conversation ends where that is impossible.
    pub credentials: Option<Credentials>,
    /// Content goes by BDAT where CHUNKING is offered (RFC 3030), and not only
    /// content that can go no other way.
    pub chunking: bool,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

/// What a host speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// SMTP: one reply to the content, for all recipients.
    #[default]
    Smtp,
    /// LMTP (RFC 2033): LHLO, and one reply to the content for each recipient.
    Lmtp,
}

/// What is asked of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsUse {
    /// Not used even if offered.
    Never,
    /// Used if offered.
    Opportunistic,
    /// Nothing is sent without.
    Required,
    /// The connection is already inside TLS.
    Active,
}

/// A user name and password for AUTH PLAIN or LOGIN.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user name.
    pub user: String,
    /// The password, in clear.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// How long to wait for each reply (RFC 5321 section 4.5.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// The banner.
    pub banner: Duration,
    /// EHLO, HELO, STARTTLS and AUTH.
    pub hello: Duration,
    /// MAIL.
    pub mail: Duration,
    /// RCPT.
    pub rcpt: Duration,
    /// DATA, until 354.
    pub data: Duration,
    /// Progress while a block of content is written.
    pub block: Duration,
    /// All of the content, so that steady drops do not go on for ever.
    pub content: Duration,
    /// The end of the content, while the remote makes the message safe.
    pub end: Duration,
    /// RSET and QUIT, where nothing is lost by giving up.
    pub reset: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Timeouts {
            banner: minutes(5), // RFC 5321 section 4.5.3.2.1
            hello: minutes(5),
            mail: minutes(5),  // RFC 5321 section 4.5.3.2.2
            rcpt: minutes(5),  // RFC 5321 section 4.5.3.2.3
            data: minutes(2),  // RFC 5321 section 4.5.3.2.4
            block: minutes(3), // RFC 5321 section 4.5.3.2.5
            content: minutes(60),
            end: minutes(10), // RFC 5321 section 4.5.3.2.6
            reset: Duration::from_secs(20),
        }
    }
}
