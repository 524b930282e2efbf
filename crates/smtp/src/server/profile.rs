//! What a session is told about the service that it stands for.

use serde::{Deserialize, Serialize};

use crate::wire::{BareLineFeed, Extensions};

/// How TLS comes to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// The client asks for it with STARTTLS (RFC 3207).
    StartTls,
    /// The connection begins with it (RFC 8314 section 3).
    Wrapper,
    /// Not at all.
    None,
}

/// What becomes of recipients beyond [`SessionLimits::max_recipients`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecipientOverflow {
    /// As SES: they are taken, and the message is refused at its end with
    /// `554 Transaction failed: Recipient count exceeds 50.`
    #[default]
    Reject,
    /// `452 Too many recipients` at each RCPT too many; a smarthost sends the
    /// rest in a next transaction (RFC 5321 section 4.5.3.1.10).
    Defer,
}

/// The service that a session stands for; shared by all sessions of a listener.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The name in the banner and the EHLO reply.
    pub hostname: String,
    /// How TLS comes to the connection.
    pub tls: TlsMode,
    /// Before TLS nothing is taken but EHLO, HELO, STARTTLS, NOOP and QUIT
    /// (RFC 3207 section 4), where TLS comes with STARTTLS.
    pub require_tls_first: bool,
    /// Whether AUTH is offered.
    pub auth: bool,
    /// Mail is taken from those only who have authenticated, or whom the
    /// driver has [identified](crate::Session::identify).
    pub require_auth: bool,
    /// Bounds of one session.
    pub limits: SessionLimits,
    /// What becomes of too many recipients, unless
    /// [`Session::set_recipient_overflow`](crate::Session::set_recipient_overflow) says otherwise.
    pub overflow: RecipientOverflow,
    /// Announces ENHANCEDSTATUSCODES (RFC 2034) and puts the code before every text.
    pub enhanced_status_codes: bool,
    /// What is announced besides.
    pub extensions: Extensions,
    /// What becomes of bare line feeds in content.
    pub bare_line_feed: BareLineFeed,
}

impl Profile {
    /// A submission service of this name with the default limits: mail from
    /// authenticated clients, inside TLS.
    pub fn submission(hostname: impl Into<String>, tls: TlsMode) -> Profile {
        Profile {
            hostname: hostname.into(),
            tls,
            require_tls_first: true,
            auth: true,
            require_auth: true,
            limits: SessionLimits::default(),
            overflow: RecipientOverflow::Reject,
            enhanced_status_codes: false,
            extensions: Extensions::default(),
            bare_line_feed: BareLineFeed::Convert,
        }
    }

    /// A public mail exchanger of this name with the default limits: it takes mail from any
    /// server, so nobody authenticates, and TLS is offered by STARTTLS and never forced (RFC 3207
    /// section 4). What a client of submission may ask for besides is not offered: delivery
    /// reports (RFC 3461) and a hold (RFC 4865). REQUIRETLS is, inside TLS: without it a bounce of
    /// mail that required TLS could not come (RFC 8689 section 5). Too many recipients of a
    /// message are deferred, so that their server comes again with them (RFC 5321 section
    /// 4.5.3.1.10).
    pub fn exchanger(hostname: impl Into<String>) -> Profile {
        Profile {
            overflow: RecipientOverflow::Defer,
            extensions: Extensions { dsn: false, future_release: None, binary_mime: false, ..Extensions::default() },
            ..Profile::open(hostname, TlsMode::StartTls)
        }
    }

    /// A service that takes mail from anyone, as a public mail exchanger: TLS
    /// is offered by `tls`, never forced (RFC 3207 section 4).
    pub fn open(hostname: impl Into<String>, tls: TlsMode) -> Profile {
        Profile { require_tls_first: false, auth: false, require_auth: false, ..Profile::submission(hostname, tls) }
    }
}

/// Bounds of one session. Beyond each the client gets the reply named there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Octets of a message, as kept: `552 Message is too long.` Announced with SIZE (RFC 1870).
    pub max_message_bytes: u64,
    /// Recipients of a message; see [`RecipientOverflow`]. Beyond 1,000 too
    /// many each further one counts as an error.
    pub max_recipients: usize,
    /// Octets of a command line, its end included: 500. RFC 5321 section
    /// 4.5.3.1.4 asks for 512, extensions for more.
    pub max_line_bytes: usize,
    /// Wrong commands since the last accepted message: 421, and the session ends.
    pub max_errors: u32,
    /// Commands that do not help to send mail (NOOP, RSET, VRFY, EHLO, BDAT of
    /// less than 1 KiB that is not the last) since the last accepted message; beyond it each counts as an error.
    pub max_idle_commands: u32,
    /// Failed AUTH exchanges: 421, and the session ends.
    pub max_auth_failures: u32,
    /// MAIL commands accepted; at the next one 421, and the session ends.
    pub max_messages: u32,
}

impl Default for SessionLimits {
    fn default() -> SessionLimits {
        SessionLimits {
            max_message_bytes: 10_485_760,
            max_recipients: 50,
            max_line_bytes: 2048,
            max_errors: 20,
            max_idle_commands: 100,
            max_auth_failures: 3,
            max_messages: 10_000,
        }
    }
}
