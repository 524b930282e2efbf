//! The virus scan: nothing that a client submitted is tried before the scanner has seen it.
//!
//! That a message was scanned needs no record: no attempt is made before, so that a recipient
//! who has had one says it, also after a restart. What waits for a verdict waits in the spool;
//! a message that is found bad is ended there as a whole.

mod board;
mod line;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use postrider_base::Timestamp;
use postrider_base::metrics::{Held, ScanVerdict};
use postrider_filter::clamd::{Clamd, Verdict};
use postrider_filter::{Error, ScanSettings};
use postrider_mail::{AttemptOutcome, Delays, Disposition, EnhancedStatus, MessageId};
use postrider_spool::{OriginKind, QueueKey};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

pub(crate) use self::board::Board;
use self::board::{Failure, Standing};
use self::line::{Line, Turn};
use crate::Shared;
use crate::finding::millis;
use crate::ready::Parked;
use crate::report::Results;
use crate::site::Job;
use crate::telling::Report;

/// Most messages that wait for their scan outside of the spool, for each that is in one.
const WAITING_PER_SCAN: usize = 32;

/// When what waits for the scanner is looked at again, whatever it does: lives end.
const LOOK_AGAIN: Duration = Duration::from_secs(10 * 60);

/// The scans, and the claims that wait for them.
pub(crate) struct Scans {
    shared: Arc<Shared>,
    /// All claims of each message that is in a scan or waits for its turn.
    jobs: HashMap<MessageId, Vec<Job>>,
    line: Line,
    /// Somebody asks whether the scanner answers.
    probing: bool,
    /// One for each that runs, and one for the probe.
    news: mpsc::UnboundedReceiver<News>,
    telling: mpsc::UnboundedSender<News>,
    /// Queues that have messages set aside until the scanner answers.
    aside: HashSet<QueueKey>,
    /// Queues that are left in the spool until there is room.
    beyond: Parked,
    again: Option<Instant>,
}

/// What a task has to say, however it ends.
enum News {
    Scanned {
        id: MessageId,
        /// The claim by which the message was read.
        job: Option<Box<Job>>,
        turn: Turn,
        found: Found,
    },
    /// The scanner does not answer, for this reason.
    Silent(String),
    Answers,
}

/// What became of a scan.
enum Found {
    Clean,
    Infected {
        name: String,
        open: Vec<(u16, u32)>,
    },
    Failed(Error),
    /// There was no scan: the message can not be read, and the spool has dealt with it.
    Nothing,
}

/// What goes on after a scan.
pub(crate) enum Scanned {
    /// These may leave.
    Passed(Vec<Job>),
    /// This one has come to its end, for the whole message.
    Ended(Box<Job>, Results),
    /// Nothing yet.
    Nothing,
}

/// What becomes of a job before it is sent on its way.
pub(crate) enum Gate {
    /// It may leave.
    Open(Job),
    /// It waits, here or in the spool.
    Waits,
    /// It has waited for as long as it may; for this reason.
    Overdue(Job, String),
}

impl Scans {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let (telling, news) = mpsc::unbounded_channel();
        Self {
            shared,
            jobs: HashMap::new(),
            line: Line::default(),
            probing: false,
            news,
            telling,
            aside: HashSet::new(),
            beyond: Parked::default(),
            again: None,
        }
    }

    /// Lets a job through, or has its message scanned.
    pub(crate) fn admit(&mut self, settings: &ScanSettings, job: Job) -> Gate {
        if settings.clamd.is_none() || !is_scanned(&job) {
            return Gate::Open(job);
        }
        let (id, now) = (job.claim.id, self.shared.clock.now());
        match self.shared.scans.standing(id, now) {
            Standing::Passed => Gate::Open(job),
            Standing::Waits(failure) => self.put_off(settings, job, &failure),
            // Its whole message is being ended by another of its claims.
            Standing::Infected => {
                job.claim.set_aside(now.saturating_add(Duration::from_secs(1)));
                Gate::Waits
            }
            Standing::Unknown => {
                self.enlist(settings, job, now);
                Gate::Waits
            }
        }
    }

    fn enlist(&mut self, settings: &ScanSettings, job: Job, now: Timestamp) {
        let id = job.claim.id;
        if let Some(jobs) = self.jobs.get_mut(&id) {
            return jobs.push(job);
        }
        let turn = if self.shared.scans.has_failed(id) { Turn::Again } else { Turn::First };
        if self.line.len(turn) >= most_waiting(settings) {
            if turn == Turn::Again {
                // Others of its queue may not have been shown to the scanner at all.
                let until = now.saturating_add(settings.retry.as_duration());
                return job.claim.set_aside(until);
            }
            let queue = job.claim.queue.clone();
            self.shared.spool.park(&queue);
            return self.beyond.add(queue, job.claim.message.expires_at);
        }
        self.shared.scans.begins(id, now);
        self.jobs.insert(id, vec![job]);
        self.line.push(id, turn);
        self.begin(settings);
    }

    /// Begins scans as far as there is room.
    fn begin(&mut self, settings: &ScanSettings) {
        while let Some((id, turn)) = self.line.next(settings.connections) {
            // Nothing is in the line without a job.
            let Some(job) = self.jobs.get_mut(&id).and_then(Vec::pop) else {
                self.line.ended(turn);
                continue;
            };
            let lost = Found::Failed(Error::Garbage("the scan broke off".to_owned()));
            let news = News::Scanned { id, job: None, turn, found: lost };
            let report = Report::new(news, &self.telling);
            let (clamd, shared) = (clamd(&self.shared, settings), self.shared.clone());
            self.shared.scope.spawn("scan", async move {
                tokio::select! {
                    biased;
                    () = shared.scope.cancelled() => {}
                    found = scan(&shared, clamd, &job) => {
                        report.say(News::Scanned { id, job: Some(Box::new(job)), turn, found });
                    }
                }
            });
        }
        if self.line.is_idle() {
            // Nothing would end that lets in the others.
            while let Some(queue) = self.beyond.pop() {
                self.shared.spool.unpark(&queue);
            }
        } else if self.line.len(Turn::First) < most_waiting(settings)
            && let Some(queue) = self.beyond.pop()
        {
            self.shared.spool.unpark(&queue);
        }
    }

    /// Waits until something has happened, and deals with it. Giving up waiting loses nothing.
    pub(crate) async fn advance(&mut self) -> Scanned {
        let again = async {
            match self.again {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let shared = self.shared.clone();
        tokio::select! {
            Some(news) = self.news.recv() => self.hear(news),
            () = again => {
                self.recall();
                Scanned::Nothing
            }
            () = shared.rescan.notified() => {
                self.shared.scans.forget_failures();
                self.shared.metrics.scanner_up.set(0);
                self.probe();
                self.recall();
                Scanned::Nothing
            }
        }
    }

    fn hear(&mut self, news: News) -> Scanned {
        let config = self.shared.config.load_full();
        let settings = &config.settings.scan;
        match news {
            News::Answers => {
                self.probing = false;
                if settings.clamd.is_some() {
                    self.shared.metrics.scanner_up.set(1);
                }
                // What failed by itself, while the scanner was there all the time, waits on.
                if self.shared.scans.comes_up() {
                    tracing::info!("the virus scanner answers again");
                    self.recall();
                }
                Scanned::Nothing
            }
            News::Silent(why) => {
                let (now, retry) = (self.shared.clock.now(), settings.retry.as_duration());
                let failure = Failure { why, since: now, until: now.saturating_add(retry) };
                if settings.clamd.is_some() && self.shared.scans.goes_down(failure) {
                    tracing::warn!("the virus scanner does not answer");
                    self.shared.metrics.scanner_up.set(0);
                }
                Scanned::Nothing
            }
            News::Scanned { id, job, turn, found } => {
                self.line.ended(turn);
                self.shared.scans.ends(id);
                let mut jobs = self.jobs.remove(&id).unwrap_or_default();
                jobs.extend(job.map(|job| *job));
                let scanned = self.conclude(settings, id, jobs, found);
                self.begin(settings);
                scanned
            }
        }
    }

    fn conclude(&mut self, settings: &ScanSettings, id: MessageId, jobs: Vec<Job>, found: Found) -> Scanned {
        let verdicts = &self.shared.metrics.scans;
        match found {
            Found::Clean => {
                verdicts.of(ScanVerdict::Clean).inc();
                self.shared.scans.passes(id);
                self.shared.metrics.scanner_up.set(1);
                Scanned::Passed(jobs)
            }
            Found::Infected { name, open } => {
                verdicts.of(ScanVerdict::Infected).inc();
                self.shared.scans.is_infected(id, self.shared.clock.now());
                tracing::warn!(%id, signature = %name, "a message has a virus and is not sent");
                // The others go back to the spool, where nobody waits any more.
                let Some(job) = jobs.into_iter().next_back() else { return Scanned::Nothing };
                let results = rejected(&job, &name, &open, self.shared.clock.now());
                Scanned::Ended(Box::new(job), results)
            }
            Found::Failed(error) => {
                verdicts.of(ScanVerdict::None).inc();
                let failure = self.fail(settings, id, &error);
                let gates = jobs.into_iter().map(|job| self.put_off(settings, job, &failure));
                let passed = gates.filter_map(|gate| match gate {
                    Gate::Open(job) => Some(job),
                    // What is overdue is found out when it comes again.
                    Gate::Overdue(..) | Gate::Waits => None,
                });
                Scanned::Passed(passed.collect())
            }
            Found::Nothing => Scanned::Nothing,
        }
    }

    /// Remembers that a scan came to nothing; if that may be the scanner's fault it is asked
    /// whether it is there. One message says nothing of the others.
    fn fail(&mut self, settings: &ScanSettings, id: MessageId, error: &Error) -> Failure {
        let now = self.shared.clock.now();
        let failure = self.shared.scans.fails(id, error.to_string(), settings.retry.as_duration(), now);
        tracing::warn!(%id, %error, "a message could not be scanned");
        if !error.is_about_the_message() {
            self.probe();
        }
        failure
    }

    /// Has a task ask until the scanner that is in force answers, where there is one. Nothing
    /// more goes to one that does not.
    pub(crate) fn probe(&mut self) {
        if self.shared.config.load().settings.scan.clamd.is_none() {
            return;
        }
        if std::mem::replace(&mut self.probing, true) {
            return;
        }
        let report = Report::new(News::Answers, &self.telling);
        let (shared, telling) = (self.shared.clone(), self.telling.clone());
        self.shared.scope.spawn("scanner", async move {
            let answers = async {
                loop {
                    let config = shared.config.load_full();
                    let Some(clamd) = clamd(&shared, &config.settings.scan) else { break };
                    let Err(error) = clamd.ping().await else { break };
                    // Nobody is there to hear it when the relay stops.
                    drop(telling.send(News::Silent(error.to_string())));
                    sleep(config.settings.scan.retry.as_duration()).await;
                }
            };
            tokio::select! {
                () = answers => drop(report),
                () = shared.scope.cancelled() => {}
            }
        });
    }

    /// Leaves a job in the spool until it is scanned, or lets it through if the operator wants
    /// that.
    fn put_off(&mut self, settings: &ScanSettings, job: Job, failure: &Failure) -> Gate {
        if settings.scan_fail_open {
            self.shared.metrics.scans_skipped.inc();
            self.shared.scans.passes(job.claim.id);
            tracing::warn!(id = %job.claim.id, why = failure.why, "a message leaves unscanned");
            return Gate::Open(job);
        }
        let (now, patience) = (self.shared.clock.now(), job.patience());
        if patience <= now {
            return Gate::Overdue(job, failure.why.clone());
        }
        self.aside.insert(job.claim.queue.clone());
        self.again.get_or_insert(self.shared.clock.instant() + LOOK_AGAIN);
        let until = if failure.until > now { failure.until } else { now.saturating_add(LOOK_AGAIN) };
        // Any number of them: none behind is to expire unseen.
        job.claim.pass_over(until.min(patience));
        Gate::Waits
    }

    /// What waits for the scanner in the spool comes again.
    fn recall(&mut self) {
        self.again = None;
        for queue in self.aside.drain() {
            self.shared.spool.read_again(&queue);
        }
    }

    /// Gives everything back, for the end.
    pub(crate) fn clear(&mut self) {
        self.jobs.clear();
        self.line.clear();
    }
}

/// Messages that may wait for their scan outside of the spool.
fn most_waiting(settings: &ScanSettings) -> usize {
    settings.connections.saturating_mul(WAITING_PER_SCAN)
}

/// Whether the message of a claim is to have been scanned, and it is not known that it was.
/// What the relay wrote itself is not: it answers to nobody's wish to send something.
fn is_scanned(job: &Job) -> bool {
    let claim = &job.claim;
    claim.message.origin.kind == OriginKind::Submission && claim.recipients.iter().all(|due| due.attempts == 0)
}

fn clamd(shared: &Shared, settings: &ScanSettings) -> Option<Clamd> {
    let socket = settings.clamd.clone()?;
    Some(Clamd::new(socket, shared.dialer.clone(), settings.timeout.as_duration()))
}

async fn scan(shared: &Shared, clamd: Option<Clamd>, job: &Job) -> Found {
    let Some(clamd) = clamd else { return Found::Nothing };
    let id = job.claim.id;
    let (began, _counted) = (shared.clock.instant(), Held::new(&shared.metrics.scans_open));
    let content = match job.claim.content().await {
        Ok(content) => content,
        Err(error) => {
            tracing::error!(%id, %error, "message cannot be read");
            return Found::Nothing;
        }
    };
    let verdict = clamd.scan(content.chunks()).await;
    shared.metrics.scan_duration.observe(shared.clock.instant().duration_since(began));
    match verdict {
        Ok(Verdict::Infected(name)) => Found::Infected { name, open: open_recipients(shared, job).await },
        Ok(_) => Found::Clean,
        Err(error) => Found::Failed(error),
    }
}

/// All recipients of a message who wait, whatever their domains are, and their attempts.
async fn open_recipients(shared: &Shared, job: &Job) -> Vec<(u16, u32)> {
    match shared.spool.show(job.claim.id).await {
        Ok(Some(view)) => {
            let recipients = (0_u16..).zip(&view.recipients).filter(|(_, recipient)| !recipient.done);
            recipients.map(|(index, recipient)| (index, recipient.attempts)).collect()
        }
        // At least those who are known here.
        _ => job.claim.recipients.iter().map(|due| (due.index, due.attempts)).collect(),
    }
}

/// The end of a message that has a virus. No attempt is made, and there is no bounce.
fn rejected(job: &Job, name: &str, open: &[(u16, u32)], now: Timestamp) -> Results {
    let queue_ms = millis(now.saturating_since(job.claim.message.released_at()));
    let mut results = Results::with_capacity(open.len());
    results.outcomes.extend(open.iter().map(|(recipient, attempts)| AttemptOutcome {
        recipient: *recipient,
        at: now,
        attempt: attempts.saturating_add(1),
        disposition: Disposition::Rejected,
        status: EnhancedStatus::new(5, 7, 1),
        diagnostic: format!("554 5.7.1 Message rejected: Bad content ({name})"),
        remote: None,
        tls: None,
        delays: Delays { queue_ms, ..Delays::default() },
        next_attempt: None,
        record: None,
    }));
    results
}
