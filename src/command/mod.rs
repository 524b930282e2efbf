//! The operator's commands: from arguments to operations, from answers to tables.

mod accounts;
mod audit;
pub(crate) mod auth;
pub(crate) mod backup;
mod bans;
pub(crate) mod config;
mod configuration_set;
mod credentials;
mod dkim;
pub(crate) mod dmarc;
mod dns;
pub(crate) mod doctor;
mod events;
mod explain;
mod feedback;
pub(crate) mod help;
mod identities;
mod message;
mod node;
mod policy;
mod queue;
mod quota;
mod reputation;
mod sending;
mod shaping;
mod spool;
pub(crate) mod state;
mod sts;
mod suppression;
mod trace;

use std::path::Path;

use anyhow::{Result, bail};
use postrider_control::Response;

use crate::access::{Access, Need};
use crate::cli::{AccountsCommand, Command, CredentialsCommand, QueueCommand, SpoolCommand};
use crate::output::Output;

/// Runs a command that acts on a node: through its daemon, or in process when none runs.
pub(crate) fn operate(command: Command, config: Option<&Path>, out: &mut Output) -> Result<()> {
    if let Command::Credentials(CredentialsCommand::Derive { region }) = &command {
        return credentials::derive(region, out);
    }
    if let Command::Spool { command: Some(command) } = &command
        && let Some(command) = spool::offline(command)
    {
        return Access::offline(config, async |config, asker| command.run(config, asker, out).await);
    }
    Access::with(config, need(&command), async |access| match command {
        Command::Accounts(command) => accounts::run(command, access, out).await,
        Command::Apply(arguments) => state::apply(arguments, access, out).await,
        Command::Export => state::export(access, out).await,
        Command::Audit(arguments) => audit::run(arguments, access, out).await,
        Command::Backup(arguments) => backup::backup(arguments, access, out).await,
        Command::Bans(command) => bans::run(command, access, out).await,
        Command::ConfigurationSets(command) => sending::configuration_sets(command, access, out).await,
        Command::Credentials(command) => credentials::run(command, access, out).await,
        Command::Dkim(command) => dkim::run(command, access, out).await,
        Command::Dns(command) => dns::run(command, access, out).await,
        Command::Doctor(arguments) => doctor::run(arguments, access, out).await,
        Command::Explain(arguments) => doctor::explain(arguments, access, out).await,
        Command::Feedback(command) => feedback::run(command, access, out).await,
        Command::Identities(command) => identities::run(command, access, out).await,
        Command::Policy(command) => policy::run(command, access, out).await,
        Command::Pools(command) => sending::pools(command, access, out).await,
        Command::Sources(command) => sending::sources(command, access, out).await,
        Command::Suppression(command) => suppression::run(command, access, out).await,
        Command::Queue(command) => queue::run(command, access, out).await,
        Command::Quota { account } => quota::run(account, access, out).await,
        Command::Reputation(arguments) => reputation::run(arguments, access, out).await,
        Command::Message { id } => message::run(id, access, out).await,
        Command::Events(command) => events::run(command, access, out).await,
        Command::Trace(arguments) => trace::run(arguments, access, out).await,
        Command::Status => node::status(access, out).await,
        Command::Reload => node::reload(access, out).await,
        Command::Sites => explain::sites(None, access, out).await,
        Command::Shaping(command) => shaping::run(command, access, out).await,
        Command::Pause(arguments) => shaping::pause(arguments, access, out).await,
        Command::Resume(arguments) => shaping::resume(arguments, access, out).await,
        Command::Sts(command) => sts::run(command, access, out).await,
        Command::Spool { command: Some(SpoolCommand::Compact) } => node::compact(access, out).await,
        Command::Spool { .. } => node::spool(access, out).await,
        _ => unreachable!("the other commands do not act on a node"),
    })
}

/// What must be opened when no daemon runs.
fn need(command: &Command) -> Need {
    match command {
        // Whether its mail waits is in the queue.
        Command::Accounts(AccountsCommand::Delete { .. }) => Need::Everything,
        Command::Apply(arguments) if arguments.prune => Need::Everything,
        Command::Accounts(_) | Command::Apply(_) | Command::Export => Need::Accounts,
        Command::Backup(arguments) => backup::need(arguments),
        Command::Audit(_) | Command::Bans(_) | Command::Credentials(_) | Command::Suppression(_) => Need::Accounts,
        Command::ConfigurationSets(_) | Command::Dkim(_) | Command::Identities(_) | Command::Pools(_) => Need::Accounts,
        Command::Policy(_) => Need::Accounts,
        Command::Dns(_) | Command::Explain(_) | Command::Quota { .. } | Command::Reputation(_) => Need::Accounts,
        Command::Doctor(arguments) if !doctor::is_about_message(arguments) => Need::Accounts,
        Command::Sources(_) | Command::Shaping(_) | Command::Pause(_) | Command::Resume(_) => Need::Daemon,
        Command::Reload | Command::Sites | Command::Sts(_) | Command::Trace(_) => Need::Daemon,
        Command::Queue(QueueCommand::Sites { .. }) => Need::Daemon,
        Command::Events(crate::cli::EventsCommand::Tail) => Need::Daemon,
        _ => Need::Everything,
    }
}

/// The answer was of another kind than the question: a daemon of another version.
fn unexpected<T>(response: &Response) -> Result<T> {
    bail!("the daemon gave an answer to another question ({response:?}): is it of another version?")
}
