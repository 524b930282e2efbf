//! `postrider spool check`, `export` and `import`: on the files of a node whose daemon does not run.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use postrider_account::{Actor, AuditEntry};
use postrider_base::{Disk, Metrics, Random, RealDisk};
use postrider_spool::{Check, ExportOptions, Exported, ImportOptions, Imported, IndexCheck, LogCheck, Selector, check};
use serde::Serialize;

use crate::cli::SpoolCommand;
use crate::config::Config;
use crate::output::{Output, bytes};
use crate::rooms::{self, Open, Queue, Rooms};
use crate::state::StateDir;

/// Lines of damage for people; programs get all.
const MOST_LINES: usize = 50;

/// A command that needs the files for itself.
pub(super) enum Offline<'a> {
    Check { repair: bool },
    Export { file: &'a Path, selector: Selector, keep: bool },
    FinishExport { file: &'a Path },
    Import { file: &'a Path, again: bool },
}

/// Whether a command is one of those.
pub(super) fn offline(command: &SpoolCommand) -> Option<Offline<'_>> {
    match command {
        SpoolCommand::Stat | SpoolCommand::Compact => None,
        SpoolCommand::Check { repair } => Some(Offline::Check { repair: *repair }),
        SpoolCommand::Export { file, finish: true, .. } => Some(Offline::FinishExport { file }),
        SpoolCommand::Export { file, domain, id, keep, .. } => {
            let selector = match (id, domain) {
                (Some(id), _) => Selector::Message(*id),
                (None, Some(domain)) => Selector::Domain(domain.clone()),
                (None, None) => Selector::All,
            };
            Some(Offline::Export { file, selector, keep: *keep })
        }
        SpoolCommand::Import { file, again } => Some(Offline::Import { file, again: *again }),
    }
}

impl Offline<'_> {
    pub(super) async fn run(self, config: &Config, asker: Actor, out: &mut Output) -> Result<()> {
        let entry = |name: &str, file: &Path| {
            AuditEntry::new(asker.clone(), name, serde_json::json!({ "file": file.display().to_string() }))
        };
        let import_entry = |file: &Path, again: bool| {
            let request = serde_json::json!({ "file": file.display().to_string(), "again": again });
            AuditEntry::new(asker.clone(), "SpoolImport", request)
        };
        match self {
            Self::Check { repair: true } => verify(config, Some(entry("SpoolRepair", Path::new(""))), out).await,
            Self::Check { repair: false } => verify(config, None, out).await,
            Self::Export { file, selector, keep } => {
                export(config, entry("SpoolExport", file), file, selector, keep, out).await
            }
            Self::FinishExport { file } => finish_export(config, entry("SpoolExport", file), file, out).await,
            Self::Import { file, again } => import(config, import_entry(file, again), file, again, out).await,
        }
    }
}

/// What `check` prints as JSON.
#[derive(Serialize)]
struct CheckReport<'a> {
    sound: bool,
    /// Before the repair, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<&'a Check>,
    #[serde(flatten)]
    found: &'a Check,
}

async fn verify(config: &Config, repair: Option<AuditEntry>, out: &mut Output) -> Result<()> {
    let mut found = look(config).await?;
    let mut before = None;
    if let Some(entry) = repair {
        if !out.json() {
            show(&found, out)?;
            out.line("\nAfter the repair:\n")?;
        }
        mend(config, entry, &found).await?;
        before = Some(std::mem::replace(&mut found, look(config).await?));
    }
    let sound = found.is_sound();
    match out.json() {
        true => out.json_document(&CheckReport { sound, before: before.as_ref(), found: &found })?,
        false => show(&found, out)?,
    }
    out.flush()?;
    match sound {
        true => Ok(()),
        false => bail!("the spool is damaged"),
    }
}

async fn look(config: &Config) -> Result<Check> {
    let state = StateDir::open_to_read(&config.server.state_dir, config.server.node.0, &Random::system())?;
    let dir = state.room("spool");
    let shown = dir.display().to_string();
    let found = tokio::task::spawn_blocking(move || check(&RealDisk, &dir, Some(&dir.join("index"))));
    found.await.context("the verification panicked")?.with_context(|| format!("cannot read {shown}"))
}

/// Opening salvages what is damaged of the log, and makes an index that is not there.
async fn mend(config: &Config, entry: AuditEntry, found: &Check) -> Result<()> {
    let index = config.server.state_dir.join("spool/index");
    if index.exists() {
        std::fs::remove_dir_all(&index).with_context(|| format!("cannot remove {}", index.display()))?;
    }
    with_queue(config, entry, async |queue, _| {
        for id in &found.damaged {
            // It may have ended together with what was lost.
            match queue.spool.hold(&Selector::Message(*id)).await {
                Ok(()) | Err(postrider_spool::Error::Unknown(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    })
    .await
}

/// Opens all rooms, of which the queue is wanted; what is done to it is recorded before.
async fn with_queue<T>(
    config: &Config,
    entry: AuditEntry,
    work: impl AsyncFnOnce(&Queue, &str) -> Result<T>,
) -> Result<T> {
    let rooms = Rooms::open(config, Open::Everything, Metrics::new()).await?;
    let queue = rooms.queue.clone().context("the queue was not opened")?;
    let done = async {
        queue.spool.recovered().await.context("the queue cannot be recovered")?;
        drop(rooms.accounts.audit().begin(vec![entry]).await?);
        work(&queue, &rooms.state.node().instance).await
    };
    let done = done.await;
    drop(queue);
    let closed = rooms.close(rooms::CLOSE_DEADLINE).await;
    done.and_then(|done| closed.map(|()| done))
}

fn show(found: &Check, out: &mut Output) -> Result<()> {
    let stop = if found.clean_stop { "in order" } else { "not in order" };
    let not_understood = match found.not_understood {
        0 => "all understood".to_owned(),
        count => format!("{count} not understood"),
    };
    let quarantine = match found.quarantine.files {
        0 => "empty".to_owned(),
        files => format!("{files} files of earlier damage, {}", bytes(found.quarantine.bytes)),
    };
    let lines = [
        ("messages", format!("{} waiting", found.messages)),
        ("log", log(&found.log)),
        ("cold log", found.cold.as_ref().map_or_else(|| "none".to_owned(), log)),
        ("records", not_understood),
        ("index", index(&found.index)),
        ("quarantine", quarantine),
        ("last stop", stop.to_owned()),
    ];
    for (name, value) in lines {
        out.line(format_args!("{name:12} {value}"))?;
    }
    for (name, log) in [("segment", Some(&found.log)), ("cold segment", found.cold.as_ref())] {
        show_faults(name, log, out)?;
    }
    for id in found.damaged.iter().take(MOST_LINES) {
        out.line(format_args!("message {id} does not read back"))?;
    }
    more(found.damaged_count, out)?;
    if costs_nothing(found) {
        out.line("nothing that waits is damaged: this goes with its segment, when a daemon has run")?;
    }
    let verdict = if found.is_sound() { "no damage" } else { "damaged" };
    out.line(verdict)
}

/// Whether there is damage, and only in bodies that nobody needs.
fn costs_nothing(found: &Check) -> bool {
    let mut faults = [Some(&found.log), found.cold.as_ref()].into_iter().flatten();
    let bodies = |log: &LogCheck| {
        log.fault_count == log.faults.len() as u64 && log.faults.iter().all(|fault| fault.part == "body")
    };
    let only_bodies = faults.all(bodies) && found.not_understood == 0 && found.quarantine.unreadable == 0;
    !found.is_sound() && only_bodies && found.damaged_count == 0 && !matches!(found.index, IndexCheck::Broken { .. })
}

fn log(log: &LogCheck) -> String {
    let torn = log.torn.map(|segment| format!(", an unfinished write at the end of segment {segment}"));
    format!("{} segments, {} batches, {}{}", log.segments, log.batches, bytes(log.bytes), torn.unwrap_or_default())
}

fn index(index: &IndexCheck) -> String {
    match index {
        IndexCheck::Agrees => "agrees with the log".to_owned(),
        IndexCheck::Behind(by) => format!(
            "behind the log, which the next start mends: {} messages missing, {} stale, {} ended; {} due times missing, \
             {} wrong",
            by.missing, by.stale, by.ended, by.missing_places, by.wrong_places
        ),
        IndexCheck::Broken { error } => format!("does not read, the next start makes it anew: {error}"),
        IndexCheck::Absent => "none, the next start makes it".to_owned(),
        IndexCheck::NotChecked { error } => format!("not checked, no copy of it could be made: {error}"),
    }
}

fn show_faults(name: &str, log: Option<&LogCheck>, out: &mut Output) -> Result<()> {
    let Some(log) = log else { return Ok(()) };
    for fault in log.faults.iter().take(MOST_LINES) {
        let lost = match fault.batches_lost {
            0 => String::new(),
            lost => format!(", {lost} batches lost"),
        };
        let (segment, offset, part) = (fault.segment, fault.offset, &fault.part);
        out.line(format_args!("{name} {segment} at byte {offset}: {part}, {} bytes{lost}", fault.bytes))?;
    }
    more(log.fault_count, out)
}

/// How many lines were left out.
fn more(count: u64, out: &mut Output) -> Result<()> {
    match count.saturating_sub(MOST_LINES as u64) {
        0 => Ok(()),
        more => out.line(format_args!("... and {more} more; --json lists them")),
    }
}

fn real_disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

async fn export(
    config: &Config,
    entry: AuditEntry,
    file: &Path,
    selector: Selector,
    keep: bool,
    out: &mut Output,
) -> Result<()> {
    let path = file.to_owned();
    let exported = with_queue(config, entry, async |queue, instance| {
        let (from, id) = (instance.to_owned(), Random::system().uuid_v4());
        let options = ExportOptions { disk: real_disk(), path, selector, from, id, keep };
        Ok(queue.spool.export(options).await?)
    })
    .await
    .context("cannot export")?;
    show_exported(&exported, file, keep, out)
}

async fn finish_export(config: &Config, entry: AuditEntry, file: &Path, out: &mut Output) -> Result<()> {
    let exported =
        with_queue(config, entry, async |queue, _| Ok(queue.spool.finish_export(real_disk(), file).await?)).await;
    show_exported(&exported.context("cannot go on with the export")?, file, false, out)
}

fn show_exported(exported: &Exported, file: &Path, keep: bool, out: &mut Output) -> Result<()> {
    if out.json() {
        return out.json_document(exported);
    }
    let Exported { messages, moved, ended, damaged, .. } = exported;
    match messages {
        0 => out.line("no such message waits here, and no file was written")?,
        _ => out.line(format_args!("{messages} messages, {}, are in {}", bytes(exported.bytes), file.display()))?,
    }
    if keep && *messages > 0 {
        out.line("they wait here too: whoever imports the file must not deliver them as well")?;
    }
    if *moved > 0 {
        out.line(format_args!("{moved} of them wait here no more: the file is their only place"))?;
    }
    if *ended > 0 {
        out.line(format_args!("{ended} had left this queue before, and may have been delivered"))?;
    }
    if *damaged > 0 {
        out.line(format_args!("{damaged} do not read back and stay here"))?;
    }
    Ok(())
}

async fn import(config: &Config, entry: AuditEntry, file: &Path, again: bool, out: &mut Output) -> Result<()> {
    let options = ImportOptions { disk: real_disk(), path: file.to_owned(), again };
    let imported = with_queue(config, entry, async |queue, _| Ok(queue.spool.import(options).await?)).await;
    let imported = imported.context("cannot import")?;
    if out.json() {
        return out.json_document(&imported);
    }
    let Imported { from, messages, held, taken_before, skipped, .. } = &imported;
    out.line(format_args!("{messages} messages, {}, taken from instance {from}", bytes(imported.bytes)))?;
    if *held && *messages > 0 {
        out.line("they are a copy and held, until `postrider queue release`")?;
    }
    if *taken_before > 0 {
        out.line(format_args!(
            "{taken_before} were taken from this file before, and are not taken again: `--again` takes those that do not \
             wait here any more"
        ))?;
    }
    if *skipped > 0 {
        out.line(format_args!("{skipped} wait here already and were left as they are:"))?;
    }
    for id in imported.skipped_ids.iter().take(MOST_LINES) {
        out.line(format_args!("  {id}"))?;
    }
    more(*skipped, out)
}
