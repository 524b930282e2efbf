//! `postrider backup` and `postrider restore`.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use postrider_account::AuditEntry;
use postrider_base::{Disk, Metrics, RealDisk};
use postrider_control::{Archive, ArchiveWriter, BackupRequest, Manifest, Operation, Response, Restored, restore};

use super::unexpected;
use crate::access::{self, Access, Need};
use crate::cli::{BackupArgs, RestoreArgs};
use crate::config::{self, Config};
use crate::output::{Output, bytes};
use crate::rooms::{self, Open, Rooms};
use crate::state::StateDir;

/// What opens the DKIM keys, where the service has not been given it as a credential.
const SEALING_KEY: &str = "keys/dkim-sealing.key";

/// A journal is wanted of a node whose daemon need not run.
pub(super) fn need(arguments: &BackupArgs) -> Need {
    if arguments.journal { Need::Everything } else { Need::Accounts }
}

pub(super) async fn backup(arguments: BackupArgs, access: &mut Access, out: &mut Output) -> Result<()> {
    let to = std::path::absolute(&arguments.to).context("the place of the backup")?;
    let mut writer = ArchiveWriter::create(disk(), &to)?;
    let mut made = None;
    let request = Operation::Backup(BackupRequest { journal: arguments.journal });
    access
        .each(request, &mut |response| match response {
            Response::Backup(item) => {
                made = writer.take(item)?.or(made.take());
                Ok(())
            }
            other => unexpected(&other),
        })
        .await?;
    let manifest = made.context("the daemon stopped in the middle of the backup")?;
    show(&manifest, &to, out)?;
    if !out.json() && !manifest.files.iter().any(|file| file.name == SEALING_KEY) {
        out.line("the key that opens the DKIM keys is not in it: it lies elsewhere, keep a copy of it too")?;
    }
    Ok(())
}

fn show(manifest: &Manifest, at: &Path, out: &mut Output) -> Result<()> {
    if out.json() {
        return out.json_document(manifest);
    }
    let size: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    let (count, node, made) = (manifest.files.len(), &manifest.node, &manifest.made_at);
    out.line(format_args!(
        "{}: node {node} as of {made}, {count} files, {}, all checksums right",
        at.display(),
        bytes(size)
    ))
}

pub(crate) fn run_restore(arguments: &RestoreArgs, file: Option<&Path>, out: &mut Output) -> Result<()> {
    // Opened as who asks; what is restored belongs to the owner of the state directory.
    let archive = Archive::open(&RealDisk, &arguments.from)?;
    if arguments.verify {
        archive.verify()?;
        return show(archive.manifest(), &arguments.from, out);
    }
    let (_, config) = config::find(file)?;
    let state_dir = &config.server.state_dir;
    if access::daemon_listens(&config.control.socket)? {
        bail!("the daemon is running: stop it, and give it an empty state directory");
    }
    let (theirs, ours) = (&archive.manifest().node, format!("{:04x}", config.server.node.0));
    if *theirs != ours {
        bail!("the backup is of node {theirs}, and the configuration says server.node = \"{ours}\"");
    }
    archive.verify()?;
    let asker = access::asker();
    access::become_owner(state_dir)?;
    let claim = StateDir::claim(state_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let restored = restore(disk(), &archive, state_dir).await.with_context(|| {
            format!("{} is not restored: empty {} and try again", arguments.from.display(), state_dir.display())
        })?;
        claim.done()?;
        let parameters = serde_json::to_value(Manifest { files: Vec::new(), ..archive.manifest().clone() })?;
        open_once(&config, AuditEntry::new(asker, "Restore", parameters)).await?;
        show_restored(&restored, archive.manifest(), state_dir, out)
    })
}

/// Whether it opens, as a daemon will.
async fn open_once(config: &Config, entry: AuditEntry) -> Result<()> {
    let rooms = Rooms::open(config, Open::Accounts, Metrics::new()).await.context("what was restored does not open")?;
    let recorded = rooms.accounts.audit().begin(vec![entry]).await;
    let closed = rooms.close(rooms::CLOSE_DEADLINE).await;
    drop(recorded?);
    closed
}

fn show_restored(restored: &Restored, manifest: &Manifest, state_dir: &Path, out: &mut Output) -> Result<()> {
    let Restored { records, files } = restored;
    if out.json() {
        let made_at = &manifest.made_at;
        return out.json_document(&serde_json::json!({ "made_at": made_at, "records": records, "files": files }));
    }
    let (state_dir, made_at) = (state_dir.display(), &manifest.made_at);
    out.line(format_args!("{state_dir} is as of {made_at}: {records} changes of the account tables, {files} files"))?;
    out.line("the queue is empty; start the daemon")
}

fn disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}
