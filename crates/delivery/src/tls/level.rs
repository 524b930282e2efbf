//! How sure a session is, and how sure it has to be.

use std::sync::Arc;

use postrider_base::metrics::TlsLevel;
use postrider_mail::TlsInfo;
use rustls::CertificateError;

use super::Authorities;
use super::dane::DanePolicy;

/// How sure a session is. That the host is the one that the recipient's domain
/// names, and that the session is with this host and nobody else, are two
/// questions: the best certificate is worth nothing when the name that it proves
/// came from a forged MX record, and a proved name nothing in clear.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Level {
    pub(crate) proof: Proof,
    pub(crate) session: Session,
}

/// Who vouches that the host is one of the domain's.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Proof {
    /// Nobody: an MX record that anybody could have forged.
    #[default]
    None,
    /// The domain's policy (MTA-STS, RFC 8461).
    Sts,
    /// DNSSEC: MX record and addresses are proved.
    Dnssec,
    /// The operator, who named the host.
    Configured,
}

/// What a session keeps out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Session {
    /// Nobody: it is in clear.
    #[default]
    None,
    /// Listeners, as long as they only listen.
    Encrypted,
    /// Everybody but the host of this name.
    Authenticated,
}

impl Level {
    /// The level of a session with a host that `proof` vouches for.
    pub(crate) fn of(proof: Proof, tls: Option<&TlsInfo>) -> Self {
        let session = match tls {
            None => Session::None,
            Some(tls) if tls.authenticated => Session::Authenticated,
            Some(_) => Session::Encrypted,
        };
        Self { proof, session }
    }

    /// Whether the session is with a host of the recipient's domain and with
    /// nobody else, which is what REQUIRETLS asks (RFC 8689 section 4.2.1).
    pub(crate) fn is_proved(self) -> bool {
        self.proof != Proof::None && self.session == Session::Authenticated
    }

    /// The label that it is counted by.
    pub(crate) fn label(self) -> TlsLevel {
        use {Proof as P, Session as S};
        match (self.proof, self.session) {
            (P::None, S::None) => TlsLevel::UnprovedClear,
            (P::None, S::Encrypted) => TlsLevel::UnprovedEncrypted,
            (P::None, S::Authenticated) => TlsLevel::UnprovedAuthenticated,
            (P::Sts, S::None) => TlsLevel::StsClear,
            (P::Sts, S::Encrypted) => TlsLevel::StsEncrypted,
            (P::Sts, S::Authenticated) => TlsLevel::StsAuthenticated,
            (P::Dnssec, S::None) => TlsLevel::DnssecClear,
            (P::Dnssec, S::Encrypted) => TlsLevel::DnssecEncrypted,
            (P::Dnssec, S::Authenticated) => TlsLevel::DnssecAuthenticated,
            (P::Configured, S::None) => TlsLevel::ConfiguredClear,
            (P::Configured, S::Encrypted) => TlsLevel::ConfiguredEncrypted,
            (P::Configured, S::Authenticated) => TlsLevel::ConfiguredAuthenticated,
        }
    }
}

/// What a session with one host has to be like.
#[derive(Clone, Default)]
pub(crate) struct HostPolicy {
    pub(crate) required: Required,
    /// Who vouches for the host.
    pub(crate) proof: Proof,
    /// Whose signatures on certificates count; `None` for those of the settings
    /// (`tls.ca_file`, else the system's).
    pub(crate) authorities: Option<Authorities>,
}

impl HostPolicy {
    /// Who wants sessions to be like that, where it is the recipient's domain.
    pub(crate) fn wanted_by(&self) -> Option<&'static str> {
        match (&self.required, self.proof) {
            (Required::Dane(_), _) => Some("the host's TLSA records want it"),
            (Required::Encryption | Required::Webpki(_), Proof::Sts) => Some("the domain's MTA-STS policy wants it"),
            _ => None,
        }
    }
}

/// What a session must be, or else nothing is sent.
#[derive(Clone, Default)]
pub(crate) enum Required {
    /// Nothing: TLS where it can be had.
    #[default]
    Nothing,
    /// Encrypted, whatever the certificate.
    Encryption,
    /// Encrypted, with a certificate for one of these names that an authority
    /// signed.
    Webpki(Vec<String>),
    /// Encrypted, with a certificate that the host's TLSA records know (RFC 7672
    /// section 2.2).
    Dane(Arc<DanePolicy>),
}

impl Required {
    /// Whether a session in clear is none.
    pub(crate) fn is_tls(&self) -> bool {
        !matches!(self, Self::Nothing)
    }

    /// At least a certificate for this name.
    pub(crate) fn at_least_certificate(self, name: &str) -> Self {
        match self {
            Self::Nothing | Self::Encryption => Self::Webpki(vec![name.to_owned()]),
            required => required,
        }
    }

    /// At least encryption.
    pub(crate) fn at_least_encryption(self) -> Self {
        match self {
            Self::Nothing => Self::Encryption,
            required => required,
        }
    }
}

/// Why there is no TLS session.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// One printable line.
    pub(crate) reason: String,
}

/// The kinds of failure that receivers are told of (RFC 8460 section 4.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FailureKind {
    /// The host does not offer STARTTLS.
    StartTlsNotSupported,
    /// The certificate is for other names.
    CertificateHostMismatch,
    /// The certificate's time is over, or has not come.
    CertificateExpired,
    /// Nobody that counts has signed the certificate.
    CertificateNotTrusted,
    /// The host's TLSA records could not be looked up, or are forged.
    DnssecInvalid,
    /// Mail can use none of the host's TLSA records.
    TlsaInvalid,
    /// Anything else.
    ValidationFailure,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, reason: impl AsRef<str>) -> Self {
        Self { kind, reason: postrider_mail::sanitize_text(reason.as_ref(), 200) }
    }

    /// What the end of a handshake says.
    pub(crate) fn of(error: &std::io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        Self::new(tls.map_or(FailureKind::ValidationFailure, kind_of), error.to_string())
    }
}

fn kind_of(error: &rustls::Error) -> FailureKind {
    use CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(bad) => match bad {
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => FailureKind::CertificateHostMismatch,
            Bad::Expired | Bad::ExpiredContext { .. } | Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                FailureKind::CertificateExpired
            }
            Bad::UnknownIssuer | Bad::BadSignature | Bad::Revoked => FailureKind::CertificateNotTrusted,
            _ => FailureKind::ValidationFailure,
        },
        _ => FailureKind::ValidationFailure,
    }
}
