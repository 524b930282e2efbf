//! What the kernel counts: processor time and memory of a process, bytes
//! written to a disk.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

/// The counts of one process and the children that it has waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// The largest resident set so far, bytes.
    pub peak_rss: u64,
}

impl Usage {
    /// Reads `/proc` for this process alone.
    ///
    /// # Errors
    /// A process that is gone, or a kernel without these files.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(Self {
            cpu: cpu(&stat).ok_or_else(|| io::Error::other("unreadable /proc/PID/stat"))?,
            peak_rss: number(&status, "VmHWM:").unwrap_or_default() * 1024,
        })
    }

    /// This process and all its living descendants; the dead ones count where
    /// their parent has waited for them. The memory is the sum of the peaks.
    ///
    /// # Errors
    /// As [`Usage::of`], for the process itself; a child may go at any time.
    pub fn of_tree(pid: u32) -> io::Result<Self> {
        let mut total = Self::of(pid)?;
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))?;
        for task in tasks.flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for child in children.split_ascii_whitespace().filter_map(|child| child.parse().ok()) {
                if let Ok(part) = Self::of_tree(child) {
                    total.cpu += part.cpu;
                    total.peak_rss += part.peak_rss;
                }
            }
        }
        Ok(total)
    }

    /// What was used since `before`; the peak is the later one.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(before.cpu), peak_rss: self.peak_rss }
    }
}

/// Processor time of a process's threads by thread name: user, system. Threads
/// that ended are not seen.
///
/// # Errors
/// A process that is gone.
pub fn by_thread(pid: u32) -> io::Result<BTreeMap<String, (Duration, Duration)>> {
    let mut names: BTreeMap<String, (Duration, Duration)> = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let name = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')).map_or("", |(name, _)| name);
        let Some(ticks) = ticks(&stat) else { continue };
        let sum = names.entry(name.to_owned()).or_default();
        sum.0 += Duration::from_millis(ticks[0] * 10);
        sum.1 += Duration::from_millis(ticks[1] * 10);
    }
    Ok(names)
}

/// Bytes that were written so far, by anybody, to the block device that holds
/// `path`; what is still in memory is written first. (`/proc/PID/io` is no
/// measure: it counts the whole of a large folio for a change of one byte.)
///
/// # Errors
/// A path on no block device, or a kernel without `/sys/dev/block`.
pub fn disk_written(path: &Path) -> io::Result<u64> {
    crate::postfix::run("sync", &[])?;
    let device = std::fs::metadata(path)?.dev();
    // As the kernel packs a device number (`new_encode_dev`).
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xfff00);
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat"))?;
    let sectors = stat.split_ascii_whitespace().nth(6).and_then(|sectors| sectors.parse::<u64>().ok());
    Ok(sectors.ok_or_else(|| io::Error::other("unreadable disk statistics"))? * 512)
}

/// Fields 14 to 17 of `/proc/PID/stat`: user, system, and the same of the
/// children that were waited for, in ticks of 10 ms (USER_HZ is 100 on every
/// platform that Linux has today). The name in field 2 may hold spaces.
fn ticks(stat: &str) -> Option<[u64; 4]> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split_ascii_whitespace().skip(11).map(|field| field.parse().unwrap_or_default());
    Some([fields.next()?, fields.next()?, fields.next()?, fields.next()?])
}

fn cpu(stat: &str) -> Option<Duration> {
    Some(Duration::from_millis(ticks(stat)?.iter().sum::<u64>() * 10))
}

fn number(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 100 50 7 3 20 0 1 0 99";
        assert_eq!(cpu(stat), Some(Duration::from_millis(1600)));
    }

    #[test]
    fn this_process_has_used_memory() {
        assert!(Usage::of(std::process::id()).unwrap().peak_rss > 0);
        assert!(Usage::of(u32::MAX).is_err());
    }
}
