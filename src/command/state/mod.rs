//! `postrider apply` and `postrider export`.

mod file;
mod plan;

use std::fmt;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use postrider_control::{APPLY_BATCH, Declared, DeclaredState, Operation, Response, StateChange, StateOperation};
use postrider_mail::AccountId;

use super::unexpected;
use crate::access::Access;
use crate::cli::ApplyArgs;
use crate::output::Output;
use file::StateFile;
use plan::{Plan, Planned};

/// What a file begins with.
const HEADER: &str = "# What this node has, for `postrider apply -f FILE`. Passwords and keys are not in it;\n\
                      # the URLs of webhooks are.\n\n";

/// A dry run found something to do; what has been printed.
#[derive(Debug)]
pub(crate) struct Differs;

impl std::error::Error for Differs {}

impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there are differences")
    }
}

pub(crate) async fn export(access: &mut Access, out: &mut Output) -> Result<()> {
    let default = access.account(None);
    let mut things = read(access).await?;
    for thing in &mut things {
        let account = thing.account_mut();
        *account = account.filter(|account| *account != default);
    }
    let state = DeclaredState::of(things);
    if out.json() {
        return out.json_document(&state);
    }
    out.raw(HEADER.as_bytes())?;
    out.raw(toml::to_string_pretty(&state)?.as_bytes())
}

pub(crate) async fn apply(arguments: ApplyArgs, access: &mut Access, out: &mut Output) -> Result<()> {
    let is_stdin = arguments.file == Path::new("-");
    let asks = !arguments.yes && !arguments.dry_run;
    if asks && (is_stdin || out.json() || !io::stdin().is_terminal()) {
        bail!("there is nobody to ask: give --yes, or --dry-run to see the difference alone");
    }
    let (name, text) = match is_stdin {
        true => (Path::new("(stdin)"), io::read_to_string(io::stdin().lock()).context("cannot read stdin")?),
        false => (
            &*arguments.file,
            std::fs::read_to_string(&arguments.file)
                .with_context(|| format!("cannot read {}", arguments.file.display()))?,
        ),
    };
    let file = StateFile::parse(name, text, access.account(None))?;
    let plan = Plan::of(&file, read(access).await?, arguments.prune);
    plan.show(out)?;
    out.flush()?;
    if plan.changes.is_empty() {
        return Ok(());
    }
    if arguments.dry_run {
        return Err(Differs.into());
    }
    if asks && !agreed(out)? {
        return out.line("nothing was changed");
    }
    let done = carry_out(&file, plan.changes, access).await?;
    match out.json() {
        true => Ok(()),
        false => out.line(format_args!("{done} changes made")),
    }
}

/// All that can be declared, as it is.
async fn read(access: &mut Access) -> Result<Vec<Declared>> {
    let mut things = Vec::new();
    access
        .each(Operation::State(StateOperation::Read), &mut |response| match response {
            Response::Declared(page) => {
                things.extend(page);
                Ok(())
            }
            other => unexpected(&other),
        })
        .await?;
    Ok(things)
}

fn agreed(out: &mut Output) -> Result<bool> {
    out.raw(b"Make these changes? [y/N] ")?;
    out.flush()?;
    let mut answer = [0; 64];
    let length = io::stdin().lock().read(&mut answer).context("cannot read the answer")?;
    let answer = String::from_utf8_lossy(&answer[..length]).trim().to_lowercase();
    Ok(answer == "y" || answer == "yes")
}

/// In batches of one kind, each made whole or not at all.
async fn carry_out(file: &StateFile, changes: Vec<Planned>, access: &mut Access) -> Result<usize> {
    let (mut done, mut rest) = (0, changes);
    // Half of it, for what encloses them.
    let most_bytes = access.max_request() / 2;
    while !rest.is_empty() {
        let count = batch_length(&rest, most_bytes);
        let later = rest.split_off(count);
        let changes: Vec<StateChange> = rest.iter().map(|planned| planned.change.clone()).collect();
        match access.ask(Operation::State(StateOperation::Apply { changes })).await {
            Ok(Response::Changed { .. }) => {}
            Ok(Response::NotApplied { index, reason }) => {
                let refused = rest.get(index).or(rest.first()).context("an answer about nothing")?;
                return Err(file.refusal(refused, &reason, done).into());
            }
            Ok(other) => return unexpected(&other),
            Err(error) if done > 0 => {
                return Err(error.context(format!("after {done} changes; the same command goes on from there")));
            }
            Err(error) => return Err(error),
        }
        done += count;
        rest = later;
    }
    Ok(done)
}

/// How many of the first changes can go together: of one kind, and either coming or going.
fn batch_length(changes: &[Planned], most_bytes: usize) -> usize {
    let sort = |planned: &Planned| (planned.key.kind, planned.change.now.is_some());
    let first = changes.first().map(sort);
    let mut bytes = 0;
    let fits = |planned: &&Planned| {
        bytes += serde_json::to_vec(&planned.change).map_or(0, |json| json.len() + 1);
        Some(sort(planned)) == first && bytes <= most_bytes
    };
    changes.iter().take(APPLY_BATCH).take_while(fits).count().max(1)
}

/// The account of things that name none.
fn settle(thing: &mut Declared, default: AccountId) {
    if let Declared::Policy(policy) = thing
        && policy.user.is_some()
    {
        policy.account = None;
        return;
    }
    thing.account_mut().get_or_insert(default);
}
