//! Bounds of what is taken in, and of bodies in memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use postrider_base::metrics::Gauge;
use postrider_base::{Clock, Disk, Timestamp};

use crate::error::{Error, Result};
use crate::message::Content;
use crate::settings::Settings;
use crate::shared::gauge;

/// Counts what is in the spool or on its way in, against the bounds.
#[derive(Debug)]
pub(crate) struct Admissions {
    bytes: AtomicU64,
    messages: AtomicU64,
    max_bytes: u64,
    max_messages: u64,
    min_free: u64,
    segment_bytes: u64,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    clock: Clock,
    gauge: Gauge,
    /// When free space is looked at next, in milliseconds since 1970.
    look_at: AtomicU64,
    /// Whether there was enough the last time.
    has_space: AtomicBool,
    /// When the log last said that messages are refused.
    told: Mutex<Option<Timestamp>>,
}

/// Room for a message that is on its way in; given back on drop.
#[derive(Debug)]
pub struct Admission {
    book: Arc<Admissions>,
    bytes: u64,
    is_kept: bool,
}

/// How long an answer of the file system about free space is good for. Space
/// goes by whole segments, which are taken long before they are full.
const FREE_FOR: Duration = Duration::from_secs(1);

/// How often the log says that messages are refused.
const TELL_EVERY: Duration = Duration::from_secs(60);

impl Admissions {
    pub(crate) fn new(settings: &Settings, disk: Arc<dyn Disk>, dir: PathBuf, clock: Clock, gauge: Gauge) -> Arc<Self> {
        Arc::new(Self {
            bytes: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            max_bytes: settings.max_bytes.bytes(),
            max_messages: settings.max_messages,
            min_free: settings.min_free_bytes.bytes(),
            segment_bytes: settings.segment_bytes.bytes(),
            disk,
            dir,
            clock,
            gauge,
            look_at: AtomicU64::new(0),
            has_space: AtomicBool::new(true),
            told: Mutex::new(None),
        })
    }

    /// Reserves room, if there is some.
    pub(crate) fn admit(self: &Arc<Self>, bytes: u64) -> Result<Admission> {
        if !self.has_space() {
            return Err(self.full("min_free_bytes"));
        }
        // Taken first and given back on drop, so that two at once do not
        // both fit in the room for one.
        let admission = self.admit_anyway(bytes);
        if self.messages.load(Ordering::Relaxed) > self.max_messages {
            return Err(self.full("max_messages"));
        }
        if self.bytes.load(Ordering::Relaxed) > self.max_bytes {
            return Err(self.full("max_bytes"));
        }
        Ok(admission)
    }

    /// Why the log gets no new segment: there is no space for one, or there is
    /// and it can not be had, for want of an inode or because the file system fails.
    pub(crate) fn no_segment(&self) -> Error {
        match self.disk.available_bytes(&self.dir) {
            // Twice: what one segment takes is more than its bytes.
            Ok(bytes) if bytes >= self.segment_bytes.saturating_mul(2) => Error::NoFile,
            _ => self.full("disk space"),
        }
    }

    /// Says in the log, now and then, that there is no room.
    fn full(&self, bound: &'static str) -> Error {
        let now = self.clock.now();
        let mut told = self.told.lock();
        if told.is_none_or(|at| now.saturating_since(at) >= TELL_EVERY) {
            *told = Some(now);
            tracing::warn!(bound, "the queue is full, new messages are refused");
        }
        Error::Full(bound)
    }

    /// Whether that much more is within the bounds, at the moment.
    pub(crate) fn has_room_for(&self, messages: u64, bytes: u64) -> Result<()> {
        let (waiting, taken) = self.counts();
        if waiting.saturating_add(messages) > self.max_messages {
            return Err(Error::Full("max_messages"));
        }
        if taken.saturating_add(bytes) > self.max_bytes {
            return Err(Error::Full("max_bytes"));
        }
        let free = self.disk.available_bytes(&self.dir).unwrap_or(u64::MAX);
        match free < self.min_free.saturating_add(bytes) {
            true => Err(Error::Full("min_free_bytes")),
            false => Ok(()),
        }
    }

    /// Reserves room beyond the bounds.
    pub(crate) fn admit_anyway(self: &Arc<Self>, bytes: u64) -> Admission {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.messages.fetch_add(1, Ordering::Relaxed);
        Admission { book: Arc::clone(self), bytes, is_kept: false }
    }

    /// A message has ended.
    pub(crate) fn release(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.messages.fetch_sub(1, Ordering::Relaxed);
    }

    /// A message takes so much less than when it was admitted.
    pub(crate) fn shrink(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Messages and bytes.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let messages = self.messages.load(Ordering::Relaxed);
        (messages, self.bytes.load(Ordering::Relaxed))
    }

    fn has_space(&self) -> bool {
        let now = self.clock.now();
        let look_at = Timestamp::from_millis(self.look_at.load(Ordering::Acquire));
        // More is left only when the clock was set back.
        let left = look_at.saturating_since(now);
        if !left.is_zero() && left <= FREE_FOR {
            return self.has_space.load(Ordering::Acquire);
        }
        // A file system that does not answer is found out by writing.
        let bytes = self.disk.available_bytes(&self.dir).unwrap_or(u64::MAX);
        let is_enough = bytes >= self.min_free;
        self.has_space.store(is_enough, Ordering::Release);
        self.look_at.store(now.saturating_add(FREE_FOR).as_millis(), Ordering::Release);
        is_enough
    }

    /// Tells the metrics how many messages there are: not each time, since all who
    /// hand in and take out messages would wait for that place in memory.
    pub(crate) fn publish(&self) {
        publish(&self.gauge, &self.messages);
    }
}

impl Admission {
    /// The message is in: its room is given back when it ends.
    pub(crate) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if !self.is_kept {
            self.book.release(self.bytes);
            self.book.publish();
        }
    }
}

/// Sets a gauge to a count, which changes under way: whoever sets it last finds
/// what it has become. Nearly: a processor that orders memory weakly may leave it
/// behind until the next change, and nothing depends on a gauge.
fn publish(told: &Gauge, count: &AtomicU64) {
    let mut now = count.load(Ordering::SeqCst);
    loop {
        told.set(gauge(now));
        let then = std::mem::replace(&mut now, count.load(Ordering::SeqCst));
        if now == then {
            return;
        }
    }
}

/// Bytes of bodies that may be kept in memory.
#[derive(Debug)]
pub(crate) struct BodyMemory {
    held: AtomicU64,
    bound: u64,
    gauge: Gauge,
}

/// A body in memory, counted until the last holder lets go.
#[derive(Debug)]
pub(crate) struct Body {
    content: Content,
    memory: Arc<BodyMemory>,
}

impl BodyMemory {
    pub(crate) fn new(bound: u64, gauge: Gauge) -> Arc<Self> {
        Arc::new(Self { held: AtomicU64::new(0), bound, gauge })
    }

    /// Keeps a body if there is room for it.
    pub(crate) fn keep(self: &Arc<Self>, content: Content) -> Option<Arc<Body>> {
        let length = content.len();
        let before = self.held.fetch_add(length, Ordering::Relaxed);
        if before.saturating_add(length) > self.bound {
            self.held.fetch_sub(length, Ordering::Relaxed);
            return None;
        }
        Some(Arc::new(Body { content, memory: Arc::clone(self) }))
    }

    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Tells the metrics, as [`Admissions::publish`].
    pub(crate) fn publish(&self) {
        publish(&self.gauge, &self.held);
    }
}

impl Body {
    pub(crate) fn content(&self) -> &Content {
        &self.content
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let length = self.content.len();
        // The last one leaves after those who would have told. (While one that finds no
        // room is counted for a moment, nobody tells before the next change.)
        if self.memory.held.fetch_sub(length, Ordering::Relaxed) == length {
            self.memory.publish();
        }
    }
}

#[cfg(test)]
mod tests {
    use postrider_base::{SimDisk, Size};

    use super::*;

    fn admissions(settings: &Settings) -> Arc<Admissions> {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
        Admissions::new(settings, disk, "/spool".into(), Clock::system(), Gauge::default())
    }

    #[test]
    fn bounds_refuse_and_room_comes_back() {
        let settings = Settings {
            max_bytes: Size::from_bytes(100),
            max_messages: 2,
            min_free_bytes: Size::from_bytes(0),
            ..Settings::default()
        };
        let book = admissions(&settings);
        let first = book.admit(60).unwrap();
        assert!(matches!(book.admit(41), Err(Error::Full("max_bytes"))));
        let second = book.admit(40).unwrap();
        assert!(matches!(book.admit(0), Err(Error::Full("max_messages"))));
        drop(first);
        second.keep();
        assert_eq!(book.counts(), (1, 40));
        assert_eq!(book.admit_anyway(1000).bytes, 1000);
        book.release(40);
        assert_eq!(book.counts(), (0, 0));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_keep_an_old_answer() {
        let disk = SimDisk::new();
        disk.create_dir_all("/spool".as_ref()).unwrap();
        let lead = Arc::new(AtomicU64::new(7_200_000));
        let clock = Clock::ahead(Arc::clone(&lead));
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let book = Admissions::new(&Settings::default(), shared, "/spool".into(), clock, Gauge::default());
        disk.set_capacity(Some(0));
        assert!(matches!(book.admit(1), Err(Error::Full("min_free_bytes"))));
        disk.set_capacity(None);
        lead.store(3_600_000, Ordering::Relaxed);
        assert!(book.admit(1).is_ok());
        // Good for a while again.
        disk.set_capacity(Some(0));
        assert!(book.admit(1).is_ok());
    }

    #[test]
    fn a_segment_is_missing_for_want_of_space_or_of_files() {
        let disk = SimDisk::new();
        disk.create_dir_all("/spool".as_ref()).unwrap();
        let settings = Settings::default();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let book = Admissions::new(&settings, shared, "/spool".into(), Clock::system(), Gauge::default());
        assert!(matches!(book.no_segment(), Error::NoFile));
        disk.set_capacity(Some(settings.segment_bytes.bytes()));
        assert!(matches!(book.no_segment(), Error::Full("disk space")));
    }

    #[test]
    fn bodies_are_counted_while_anybody_holds_them() {
        let memory = BodyMemory::new(10, Gauge::default());
        let content = Content::from(vec![0; 6]);
        let body = memory.keep(content.clone()).unwrap();
        let claim = Arc::clone(&body);
        assert!(memory.keep(content.clone()).is_none());
        drop(body);
        assert_eq!(memory.held(), 6);
        drop(claim);
        assert_eq!(memory.held(), 0);
        assert!(memory.keep(content).is_some());
    }
}
