//! Where damaged records go, so that nothing is thrown away unseen.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use postrider_base::{Clock, Disk, Metrics, OpenMode};

/// The directory `quarantine` beside the log.
#[derive(Debug)]
pub(crate) struct Quarantine {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    clock: Clock,
    metrics: Metrics,
    count: AtomicU64,
}

/// Files kept at most: a disk that goes bad is not filled with notes.
const MAX_FILES: usize = 10_000;

impl Quarantine {
    pub(crate) fn new(disk: Arc<dyn Disk>, spool: &std::path::Path, clock: Clock, metrics: Metrics) -> Self {
        Self { disk, dir: spool.join("quarantine"), clock, metrics, count: AtomicU64::new(0) }
    }

    /// Counts damage, and keeps a note and the bytes that could be read.
    pub(crate) fn note(&self, name: &str, what: &str, bytes: &[u8]) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.metrics.spool_quarantined.inc();
        tracing::error!(name, what, "damaged record");
        if let Err(error) = self.keep(name, what, bytes) {
            tracing::warn!(name, %error, "the note on a damaged record was not kept");
        }
    }

    /// Damage since the start.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn keep(&self, name: &str, what: &str, bytes: &[u8]) -> std::io::Result<()> {
        self.disk.create_dir_all(&self.dir)?;
        if self.disk.read_dir(&self.dir)?.len() >= MAX_FILES {
            return Ok(());
        }
        let note = format!("{}: {what}\n", self.clock.now().rfc3339());
        for (suffix, content) in [("txt", note.as_bytes()), ("bin", bytes)] {
            let path = self.dir.join(format!("{name}.{suffix}"));
            if !content.is_empty() && !self.disk.exists(&path) {
                let file = self.disk.open(&path, OpenMode::CreateNew)?;
                file.write_all_at(content, 0)?;
                file.sync_data()?;
            }
        }
        self.disk.sync_dir(&self.dir)
    }
}
