//! The commands about how much mail goes where.

use clap::{Args, Subcommand};
use postrider_base::Period;

#[derive(Debug, Subcommand)]
pub(crate) enum ShapingCommand {
    /// List everything that pauses, by an operator or by what hosts said
    List,
    /// Show which rules hold for a domain, a site or a provider, which file each is from, and
    /// how it stands
    Show {
        /// A recipient domain, a provider, a host or a site
        name: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct PauseArgs {
    /// A recipient domain, a provider, a host or a site
    pub(crate) name: String,
    /// Only what leaves from this source; `system` is the address that the system chooses
    #[arg(long)]
    pub(crate) source: Option<String>,
    /// How long, as 30m, 4h, 2d [default: until it is lifted]
    #[arg(long = "for", value_name = "TIME")]
    pub(crate) time: Option<Period>,
    /// Why, for those who wonder later
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ResumeArgs {
    /// What was paused: a recipient domain, a provider, a host or a site
    pub(crate) name: String,
    /// Only pauses of this source
    #[arg(long)]
    pub(crate) source: Option<String>,
}
