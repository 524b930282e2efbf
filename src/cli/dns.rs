//! The commands that say what to publish, what is wrong, and what would be used.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use postrider_mail::{Domain, EmailAddress};
use postrider_mailauth::records::Format;

use super::AccountArg;

const PLAN_EXAMPLES: &str = "Examples:
  postrider dns plan example.com                      a zone file, with the reasons
  postrider dns plan example.com --check              what of it is there already
  postrider dns plan example.com --format csv > records.csv
  postrider dns plan example.com --publish --server 192.0.2.53 --key /etc/postrider/tsig.key";

#[derive(Debug, Subcommand)]
pub(crate) enum DnsCommand {
    /// Print every record that a domain should publish, and why; or publish them
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(Box<DnsPlanArgs>),
}

#[derive(Args, Debug)]
pub(crate) struct DnsPlanArgs {
    /// The domain that mail is sent from
    pub(crate) domain: Domain,
    /// Compare each record with the DNS: what is right already is marked
    #[arg(long)]
    pub(crate) check: bool,
    /// The form; --json is one more
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: PlanFormat,
    /// Who reads the DMARC reports of receivers
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dmarc_reports: Option<EmailAddress>,
    /// Who reads the reports of others on TLS
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) tls_reports: Option<EmailAddress>,
    /// Add what is not there by dynamic update (RFC 2136); what is there is never changed
    #[arg(long, requires = "server")]
    pub(crate) publish: bool,
    /// The zone's primary name server, with or without a port
    #[arg(long, value_name = "HOST", requires = "publish")]
    pub(crate) server: Option<String>,
    /// The zone [default: the one in which the server has the domain]
    #[arg(long, requires = "publish")]
    pub(crate) zone: Option<String>,
    /// The file with the key that the server knows (TSIG), as tsig-keygen writes it
    #[arg(long, value_name = "FILE", requires = "publish")]
    pub(crate) key: Option<PathBuf>,
    /// Only say what would be added
    #[arg(long, requires = "publish")]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) account: AccountArg,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum PlanFormat {
    /// Lines of a zone file
    #[default]
    Zone,
    /// For spreadsheets and the consoles of DNS providers
    Csv,
    /// A script for BIND's nsupdate
    Nsupdate,
}

impl From<PlanFormat> for Format {
    fn from(format: PlanFormat) -> Format {
        match format {
            PlanFormat::Zone => Format::Zone,
            PlanFormat::Csv => Format::Csv,
            PlanFormat::Nsupdate => Format::Nsupdate,
        }
    }
}

pub(super) const DOCTOR_HELP: &str = "Examples:
  postrider doctor example.com       everything that decides about mail of the domain
  postrider doctor --self            this machine, and the addresses that mail leaves from
  postrider doctor 0100018bcfe56800-16db2f1c-7db3-4f6c-8a5e-4b1d3f0f7f7a-000000

Exit codes of the doctor:
  0   nothing to do
  1   something should be done
  2   mail suffers";

#[derive(Args, Debug)]
#[group(id = "patient", required = true, multiple = false, args = ["target", "host"])]
pub(crate) struct DoctorArgs {
    /// A domain that mail is sent from, or the id of a message
    #[arg(value_name = "DOMAIN|ID")]
    pub(crate) target: Option<String>,
    /// Look at this machine and at the addresses that mail leaves from
    #[arg(long = "self")]
    pub(crate) host: bool,
    /// Connect to this host to see whether port 25 is open outwards [default: doctor.probe]
    #[arg(long, value_name = "HOST", requires = "host")]
    pub(crate) probe: Option<String>,
    #[command(flatten)]
    pub(crate) account: AccountArg,
}

pub(super) const EXPLAIN_EXAMPLES: &str = "Examples:
  postrider explain --from news@example.com
  postrider explain --from news@example.com --credential AKIAIOSFODNN7EXAMPLE --configuration-set bulk";

#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// The address in From
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) from: EmailAddress,
    /// The user name that submits
    #[arg(long, value_name = "USER", conflicts_with = "account")]
    pub(crate) credential: Option<String>,
    /// What the message names in X-SES-CONFIGURATION-SET
    #[arg(long, value_name = "NAME")]
    pub(crate) configuration_set: Option<String>,
    /// A recipient: the sandbox lets only some be written to
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) to: Option<EmailAddress>,
    #[command(flatten)]
    pub(crate) account: AccountArg,
}
