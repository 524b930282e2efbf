//! The commands about DKIM keys.

use clap::{Args, Subcommand, ValueEnum};
use postrider_mail::{DkimAlgorithm, Domain, Selector};

use super::AccountArg;

#[derive(Debug, Subcommand)]
pub(crate) enum DkimCommand {
    /// List the keys: which sign, which follow, which must stay published
    List {
        /// Of this domain alone
        domain: Option<Domain>,
        #[command(flatten)]
        account: AccountArg,
    },
    /// Show a key with the record to publish
    Show {
        #[command(flatten)]
        key: KeyArgs,
    },
    /// Make the three keys of a domain that postrider looks after: publish them, and each signs when
    /// its time has come
    Create {
        /// A domain identity
        domain: Domain,
        /// RSA for everybody; Ed25519 for a second signature beside it
        #[arg(long, value_enum, default_value_t)]
        algorithm: AlgorithmChoice,
        #[command(flatten)]
        account: AccountArg,
    },
    /// Take your own key, which is read from stdin: PEM (PKCS#1 or PKCS#8), RSA of 2048 to 4096 bits or
    /// Ed25519
    Import {
        #[command(flatten)]
        key: KeyArgs,
        /// Its record is published: let it sign at once
        #[arg(long)]
        now: bool,
    },
    /// Let the next key sign, and the current one retire
    Rotate {
        /// The domain
        domain: Domain,
        /// Let this key sign
        #[arg(long)]
        selector: Option<Selector>,
        /// Although its record has not been seen in the DNS: you know that it is published
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        account: AccountArg,
    },
    /// Let a key sign no more: the next one does; it must stay published for mail that is under way
    Retire {
        #[command(flatten)]
        key: KeyArgs,
        /// Although no other key has been seen in the DNS: mail is sent unsigned
        #[arg(long)]
        force: bool,
    },
    /// Forget a key
    Delete {
        #[command(flatten)]
        key: KeyArgs,
        /// Although it signs, or mail that it signed may be under way
        #[arg(long)]
        force: bool,
    },
}

#[derive(Args, Debug)]
pub(crate) struct KeyArgs {
    /// The domain
    pub(crate) domain: Domain,
    /// The key's name in the DNS: SELECTOR._domainkey.DOMAIN
    pub(crate) selector: Selector,
    #[command(flatten)]
    pub(crate) account: AccountArg,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum AlgorithmChoice {
    /// RSA of 2048 bits
    #[default]
    Rsa,
    /// Ed25519 (RFC 8463)
    Ed25519,
}

impl From<AlgorithmChoice> for DkimAlgorithm {
    fn from(choice: AlgorithmChoice) -> DkimAlgorithm {
        match choice {
            AlgorithmChoice::Rsa => DkimAlgorithm::RsaSha256,
            AlgorithmChoice::Ed25519 => DkimAlgorithm::Ed25519Sha256,
        }
    }
}
