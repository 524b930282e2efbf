//! The commands about identities.

use clap::{Subcommand, ValueEnum};
use postrider_account::{IdentityName, MailFromFailure};
use postrider_mail::Domain;

use super::AccountArg;

#[derive(Debug, Subcommand)]
pub(crate) enum IdentitiesCommand {
    /// List the identities and how far they are verified
    List {
        #[command(flatten)]
        account: AccountArg,
    },
    /// Show an identity with the records to publish
    Show {
        /// A domain or an address
        name: IdentityName,
        #[command(flatten)]
        account: AccountArg,
    },
    /// Make an identity: a domain covers its subdomains, an address itself and its +labels. A domain is
    /// verified by its DKIM records in the DNS, an address by a link that it is mailed
    Create {
        /// A domain or an address
        name: IdentityName,
        /// It needs no proof
        #[arg(long)]
        trust: bool,
        /// The configuration set of messages that name none
        #[arg(long, value_name = "NAME")]
        configuration_set: Option<String>,
        /// A tag; an identity has at most 50
        #[arg(long = "tag", value_name = "KEY=VALUE")]
        tags: Vec<String>,
        #[command(flatten)]
        account: AccountArg,
    },
    /// Put tags on an identity, or take them off
    SetTags {
        /// A domain or an address
        name: IdentityName,
        /// A tag, or another value for it; an identity has at most 50
        #[arg(long = "tag", value_name = "KEY=VALUE", required_unless_present = "untags")]
        tags: Vec<String>,
        /// Take a tag off
        #[arg(long = "untag", value_name = "KEY")]
        untags: Vec<String>,
        #[command(flatten)]
        account: AccountArg,
    },
    /// Verify an identity and its MAIL FROM domain: look at the DNS now, or mail another link
    Verify {
        /// A domain or an address
        name: IdentityName,
        #[command(flatten)]
        account: AccountArg,
    },
    /// Declare that an identity needs no proof
    Trust {
        /// A domain or an address
        name: IdentityName,
        #[command(flatten)]
        account: AccountArg,
    },
    /// Take that back: it is verified as others are
    Untrust {
        /// A domain or an address
        name: IdentityName,
        #[command(flatten)]
        account: AccountArg,
    },
    /// Forget an identity; its DKIM keys stay
    Delete {
        /// A domain or an address
        name: IdentityName,
        #[command(flatten)]
        account: AccountArg,
    },
    /// Give an identity a MAIL FROM domain of its own, or take it away
    ///
    /// Return paths are in it where they are the relay's (`submission.return_path = "verp"`).
    /// With "sender" they are what the client says: then the domain is looked after, and of
    /// no effect on mail.
    MailFrom {
        /// A domain or an address
        name: IdentityName,
        /// The MAIL FROM domain, which lies inside the identity's
        #[arg(required_unless_present = "none", conflicts_with = "none")]
        domain: Option<Domain>,
        /// What becomes of mail with return paths of the relay's while the domain's records are
        /// not as they should be; bounces, which have none, always go
        #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
        on_failure: OnFailure,
        /// Take it away
        #[arg(long)]
        none: bool,
        #[command(flatten)]
        account: AccountArg,
    },
    /// Change how mail of an identity is signed
    Dkim {
        /// A domain or an address
        name: IdentityName,
        /// Whether it is
        #[arg(long, value_enum, value_name = "ON|OFF", required_unless_present = "ed25519")]
        signing: Option<Switch>,
        /// Whether it gets a second signature, by Ed25519
        #[arg(long, value_enum, value_name = "ON|OFF")]
        ed25519: Option<Switch>,
        #[command(flatten)]
        account: AccountArg,
    },
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum OnFailure {
    /// It is sent with the return path that it would have otherwise
    #[default]
    UseDefault,
    /// It is refused
    Reject,
}

impl From<OnFailure> for MailFromFailure {
    fn from(choice: OnFailure) -> MailFromFailure {
        match choice {
            OnFailure::UseDefault => MailFromFailure::UseDefault,
            OnFailure::Reject => MailFromFailure::Reject,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}
