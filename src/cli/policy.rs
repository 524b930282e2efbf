//! The commands about policies.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use postrider_account::{IdentityName, PolicyOwner};
use postrider_base::Timestamp;
use postrider_mail::{AccountId, EmailAddress};

use super::AccountArg;

const TEST_EXAMPLES: &str = "Examples:
  postrider policy test --credential AKIAIOSFODNN7EXAMPLE --from news@example.com --to ann@example.net
  postrider policy test --credential AKIAIOSFODNN7EXAMPLE --from news@example.com --to ann@example.net \\
      --ip 192.0.2.7 --at 2030-09-30T23:59:59Z
  postrider policy test --credential AKIAIOSFODNN7EXAMPLE --from news@example.org --to ann@example.net \\
      --source-arn arn:aws:ses:us-east-1:000000000002:identity/example.org";

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Attach a policy, in the place of one of the same name; it holds for the next message
    Put {
        #[command(flatten)]
        owner: OwnerArgs,
        /// What to call it: 1 to 64 letters, digits, - and _
        name: String,
        /// The file with its JSON; - is standard input
        file: PathBuf,
    },
    /// List the policies of a credential or identity
    List {
        #[command(flatten)]
        owner: OwnerArgs,
    },
    /// Print a policy, as it was put
    Show {
        #[command(flatten)]
        owner: OwnerArgs,
        /// Its name
        name: String,
    },
    /// Take a policy away
    Delete {
        #[command(flatten)]
        owner: OwnerArgs,
        /// Its name
        name: String,
    },
    /// Say what the policies would say about a message, and which statement decides
    #[command(after_help = TEST_EXAMPLES)]
    Test(Box<PolicyTestArgs>),
}

/// What a policy is attached to.
#[derive(Args, Debug)]
#[group(skip)]
pub(crate) struct OwnerArgs {
    /// Of the credential of this user name: what it may do
    #[arg(long, value_name = "USER", required_unless_present = "identity", conflicts_with = "identity")]
    credential: Option<String>,
    /// Of this identity: who else may send from it
    #[arg(long, value_name = "DOMAIN|ADDRESS")]
    identity: Option<IdentityName>,
    #[command(flatten)]
    pub(crate) account: AccountArg,
}

impl OwnerArgs {
    /// The account is the identity's; a credential has its own.
    pub(crate) fn owner(self, account: AccountId) -> Option<PolicyOwner> {
        let credential = self.credential.map(PolicyOwner::Credential);
        credential.or(self.identity.map(|name| PolicyOwner::Identity(account, name)))
    }
}

#[derive(Args, Debug)]
pub(crate) struct PolicyTestArgs {
    /// The user name of the credential that submits the message
    #[arg(long, value_name = "USER")]
    pub(crate) credential: String,
    /// The address in From
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) from: EmailAddress,
    /// The name beside it
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The recipients
    #[arg(long, value_name = "ADDRESS,...", value_delimiter = ',', required = true)]
    pub(crate) to: Vec<EmailAddress>,
    /// The envelope sender, to which bounces go [default: the address in From]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) return_path: Option<EmailAddress>,
    /// The client's address [default: unknown: IpAddress does not hold then, NotIpAddress does]
    #[arg(long)]
    pub(crate) ip: Option<IpAddr>,
    /// When the message comes, as 2030-01-31T12:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) at: Option<Timestamp>,
    /// The connection is not encrypted
    #[arg(long)]
    pub(crate) plain: bool,
    /// The identity that the message names in X-SES-SOURCE-ARN
    #[arg(long, value_name = "ARN")]
    pub(crate) source_arn: Option<String>,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_rfc3339(text).ok_or_else(|| "expected a time as 2030-01-31T12:00:00Z".to_owned())
}
