//! Whom mail is taken for.

use postrider_mail::{EmailAddress, Verp};

/// A recipient that mail is taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mailbox {
    /// A return path of ours: about this message and recipient.
    ReturnPath(Verp),
    /// An address that providers send their complaints to.
    Complaints(EmailAddress),
    /// `postmaster@` or `abuse@` of a domain of return paths: for the operator.
    Operator(EmailAddress),
}

/// Local parts that every domain has (RFC 5321 section 4.5.1, RFC 2142 section 2).
pub(crate) const ROLES: [&str; 2] = ["postmaster", "abuse"];
