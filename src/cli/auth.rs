//! The commands about authentication that others did, or will do.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// Verify a message as a receiver would: SPF, DKIM, ARC, DMARC, and what to do where one of
    /// them does not pass. Asks the DNS and nobody else, and needs no daemon
    Check(AuthCheckArgs),
}

#[derive(Args, Debug)]
pub(crate) struct AuthCheckArgs {
    /// The message, as it was received; - is stdin
    pub(crate) file: PathBuf,
    /// The address that it came from; without it SPF is not checked
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Option<IpAddr>,
    /// The name that the client gave in EHLO
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) helo: String,
    /// The address of MAIL FROM [default: that of the Return-Path field]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) mail_from: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DmarcCommand {
    /// Read aggregate reports (rua) and count them together: what came from where in the name of
    /// a domain, and whether it passed
    Report(DmarcReportArgs),
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(crate) struct DmarcReportArgs {
    /// Reports: XML, packed or not, or mails with one attached; - is stdin
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// A folder of such files, or a Maildir; what is no report in it is counted
    #[arg(long, value_name = "DIR")]
    pub(crate) inbox: Option<PathBuf>,
}
