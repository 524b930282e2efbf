//! What is done besides counting: asking domains whether they want reports,
//! saving the counts, and sending the reports of the days that are over.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use postrider_base::Timestamp;
use postrider_base::metrics::TlsReport;
use postrider_dns::DnsError;
use postrider_mail::{AccountId, Domain, EmailAddress};
use postrider_spool::OriginKind;
use postrider_store::{Batch, Change};
use postrider_submission::OwnMessage;
use tokio::time::timeout;

use super::mail::{Letter, compose};
use super::record::{Place, places};
use super::report::{About, MEDIA_TYPE, gzip, json};
use super::{Day, MOST_SILENT, Row, State, Stored, TlsReports, key, parse_key};
use crate::Shared;
use crate::config::Config;
use crate::https::{Https, Url};

/// How much of the counts a crash loses.
const ROUND: Duration = Duration::from_secs(60);

/// Reports are sent at a random time within so long after the day's end (RFC 8460
/// section 4.1).
const SPREAD_MILLIS: u64 = 4 * 3600 * 1000;

/// How long a report is tried (RFC 8460 section 5.5).
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// The first wait after a report that could not be handed in; each one is twice as
/// long, up to the last.
const WAITS: (Duration, Duration) = (Duration::from_secs(5 * 60), Duration::from_secs(4 * 3600));

/// Questions and reports at the same time.
const AT_ONCE: usize = 10;

/// Rows that are written together.
const BATCH: usize = 32;

/// Runs until the relay stops, and saves what is left then.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut daily = Daily { shared: shared.clone(), today: Day::default(), next: Timestamp::default() };
    loop {
        tokio::select! {
            () = tokio::time::sleep(ROUND) => {}
            () = shared.scope.cancelled() => break,
        }
        let config = shared.config.load_full();
        tokio::select! {
            () = daily.round(&config) => {}
            () = shared.scope.cancelled() => break,
        }
    }
    shared.tls_reports.save().await;
}

struct Daily {
    shared: Arc<Shared>,
    today: Day,
    /// When there is something to send.
    next: Timestamp,
}

impl Daily {
    async fn round(&mut self, config: &Config) {
        let reports = &self.shared.tls_reports;
        reports.discover(&self.shared, config).await;
        let has_late = reports.save().await;
        let now = self.shared.clock.now();
        if has_late || self.today != Day::of(now) {
            self.today = Day::of(now);
            self.next = now;
        }
        if self.next <= now {
            let contact = config.settings.tls.reports.contact.clone();
            self.next = match contact {
                Some(contact) => self.send(config, &contact).await,
                // Tomorrow it may have changed.
                None => Timestamp::from_millis(u64::MAX),
            };
        }
    }

    /// Sends what is due of the days that are over, and says when the next is.
    async fn send(&self, config: &Config, contact: &EmailAddress) -> Timestamp {
        let now = self.shared.clock.now();
        let rows = self.shared.tls_reports.over(Day::of(now)).await;
        let rows: Vec<_> = futures_util::stream::iter(rows)
            .map(|(row, day, domain, mut stored)| async move {
                let due = match stored.due {
                    None => Some(now.saturating_add(Duration::from_millis(self.shared.random.below(SPREAD_MILLIS)))),
                    Some(due) if due > now => return (Some(due), None),
                    Some(_) => self.send_one(config, contact, day, &domain, &mut stored).await,
                };
                stored.due = due;
                (due, Some(due.map_or(Change::Delete(row.clone()), |_| Change::Put(row, Row::V1(stored)))))
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let next = rows.iter().filter_map(|(due, _)| *due).min();
        self.shared.tls_reports.write(rows.into_iter().filter_map(|(_, change)| change).collect()).await;
        next.unwrap_or(Timestamp::from_millis(u64::MAX))
    }

    /// Sends one report to those of its places that do not have it, and says when
    /// to try again.
    async fn send_one(
        &self,
        config: &Config,
        contact: &EmailAddress,
        day: Day,
        domain: &Domain,
        stored: &mut Stored,
    ) -> Option<Timestamp> {
        let now = self.shared.clock.now();
        let limit = config.settings.timeouts.lookup.as_duration();
        let mut failed = match timeout(limit, wants(&self.shared, domain)).await {
            Ok(Ok(places)) => self.hand_in(config, contact, day, domain, stored, places).await,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no answer of the DNS".to_owned()),
        };
        let reason = failed.take()?;
        stored.tries += 1;
        let first = *stored.first_try.get_or_insert(now);
        let wait = WAITS.0.saturating_mul(1 << (stored.tries - 1).min(10)).min(WAITS.1);
        let next = now.saturating_add(wait);
        if next.saturating_since(first) > PATIENCE {
            tracing::warn!(%domain, day = %day.date(), %reason, "the report about TLS cannot be handed in");
            self.shared.metrics.tls_reports.of(TlsReport::Failed).inc();
            return None;
        }
        tracing::debug!(%domain, day = %day.date(), %reason, "the report about TLS is not handed in yet");
        Some(next)
    }

    /// Why the report has not reached all of its places.
    async fn hand_in(
        &self,
        config: &Config,
        contact: &EmailAddress,
        day: Day,
        domain: &Domain,
        stored: &mut Stored,
        places: Vec<(String, Place)>,
    ) -> Option<String> {
        let submitter = self.shared.submission.settings().operator_domain();
        let organization = config.settings.tls.reports.organization.as_deref().unwrap_or(submitter);
        let contact = contact.to_string();
        let about = About { organization, contact: &contact, submitter, domain, day };
        let gzipped = gzip(&json(&about, &stored.tally));
        let mut failed = None;
        for (uri, place) in places {
            if stored.done.contains(&uri) {
                continue;
            }
            let sent = match place {
                Place::Mail(to) => self.mail(&about, &to, &gzipped).await,
                Place::Web(url) => self.post(config, &url, &gzipped).await,
            };
            match sent {
                Ok(()) => {
                    tracing::info!(%domain, day = %day.date(), %uri, "a report about TLS was sent");
                    self.shared.metrics.tls_reports.of(TlsReport::Sent).inc();
                    stored.done.push(uri);
                }
                Err(reason) => failed = Some(reason),
            }
        }
        failed
    }

    /// Queues the report as mail of our own.
    async fn mail(&self, about: &About<'_>, to: &EmailAddress, gzipped: &[u8]) -> Result<(), String> {
        let submission = &self.shared.submission;
        let id = submission.new_id();
        let from = format!("tls-reports@{}", about.submitter);
        let from: EmailAddress = from.parse().map_err(|error| format!("{from}: {error}"))?;
        let letter = Letter {
            from: &from,
            to,
            message_id: &format!("{id}@{}", submission.message_id_domain()),
            date: id.timestamp(),
            boundary: self.shared.random.u128(),
        };
        let mut message = submission.own_message(OwnMessage {
            id,
            account: AccountId::default(),
            to: to.clone(),
            kind: OriginKind::Operator,
            require_tls: false,
            content: compose(about, &letter, gzipped),
        });
        message.tls_optional = true;
        message.expires_at = message.accepted_at.saturating_add(PATIENCE);
        // RFC 8460 section 5.3: a report without a signature may be ignored.
        let message = submission.signed_own(message).await;
        self.shared.spool.accept(message).await.map(drop).map_err(|error| error.to_string())
    }

    /// Hands the report in over HTTPS (RFC 8460 section 5.4).
    async fn post(&self, config: &Config, url: &Url, gzipped: &[u8]) -> Result<(), String> {
        let tls = config.tls.web().ok_or("no certificate authorities")?;
        let (resolver, dialer) = (&*self.shared.resolver, &*self.shared.dialer);
        let https = Https { resolver, dialer, tls, settings: &config.settings };
        let response = https.post(url, MEDIA_TYPE, gzipped.to_vec().into()).await;
        match response.map_err(|error| error.to_string())?.status {
            200..=299 => Ok(()),
            status => Err(format!("HTTP status {status}")),
        }
    }
}

/// Where `domain` wants reports: nowhere, most often.
async fn wants(shared: &Shared, domain: &Domain) -> Result<Vec<(String, Place)>, DnsError> {
    match shared.resolver.txt(&format!("_smtp._tls.{domain}")).await {
        Ok(answer) => Ok(places(&answer.value)),
        Err(error) if error.is_temporary() => Err(error),
        Err(_) => Ok(Vec::new()),
    }
}

impl TlsReports {
    /// Asks the domains of which nobody knows yet whether they want reports.
    /// Those that do not are not counted any more today.
    async fn discover(&self, shared: &Shared, config: &Config) {
        let today = Day::of(self.0.clock.now());
        let unknown: Vec<_> = {
            let mut state = self.0.state.lock();
            if state.silent_on != today || state.silent.len() >= MOST_SILENT {
                (state.silent_on, state.silent) = (today, Default::default());
            }
            state.days.iter().filter(|(_, entry)| !entry.wanted).map(|(key, _)| key.clone()).collect()
        };
        let limit = config.settings.timeouts.lookup.as_duration();
        futures_util::stream::iter(unknown)
            .for_each_concurrent(AT_ONCE, |key| async move {
                let answer = timeout(limit, wants(shared, &key.1)).await;
                let mut state = self.0.state.lock();
                match answer {
                    Ok(Ok(places)) if places.is_empty() => state.forget(&key),
                    Ok(Ok(_)) => {
                        if let Some(entry) = state.days.get_mut(&key) {
                            entry.wanted = true;
                        }
                    }
                    // Asked again in the next round, but not for ever.
                    Ok(Err(_)) | Err(_) if key.0 < today => state.forget(&key),
                    Ok(Err(_)) | Err(_) => {}
                }
            })
            .await;
    }

    /// Saves what has changed. True when some of it is of a day that is over.
    pub(super) async fn save(&self) -> bool {
        let today = Day::of(self.0.clock.now());
        let (changes, has_late) = self.0.state.lock().changes(today);
        self.0.metrics.tls_report_domains.set(i64::try_from(self.wanted()).unwrap_or(i64::MAX));
        self.write(changes).await;
        has_late
    }

    fn wanted(&self) -> usize {
        self.0.state.lock().days.values().filter(|entry| entry.wanted).count()
    }

    /// Writes rows. One that the store does not take is forgotten, and keeps no
    /// other from being written.
    pub(super) async fn write(&self, changes: Vec<Change<String, Row>>) {
        let table = &self.0.table;
        for chunk in changes.chunks(BATCH) {
            let mut batch = Batch::new();
            for change in chunk {
                let (key, taken) = match change {
                    Change::Put(key, row) => (key, batch.put(table, key, row)),
                    Change::Delete(key) => (key, batch.delete(table, key)),
                };
                if let Err(error) = taken {
                    tracing::error!(row = %key, %error, "cannot keep counts for a report about TLS");
                    self.0.metrics.tls_report_uncounted.inc();
                    // What is older of it must not be reported again and again.
                    let _ = batch.delete(table, key);
                }
            }
            if let Err(error) = self.0.store.write(batch).await {
                tracing::error!(%error, "cannot save counts for reports about TLS");
            }
        }
    }

    /// The rows of days before this one.
    async fn over(&self, today: Day) -> Vec<(String, Day, Domain, Stored)> {
        let (table, end) = (self.0.table.clone(), key(today, ""));
        let reading = tokio::task::spawn_blocking(move || {
            let rows = table.scan().filter_map(|row| match row {
                Ok(row) => Some(row),
                Err(error) => {
                    tracing::error!(%error, "cannot read counts for a report about TLS");
                    None
                }
            });
            rows.take_while(|(row, _)| *row < end)
                .filter_map(|(row, Row::V1(stored))| {
                    let (day, domain) = parse_key(&row)?;
                    Some((row, day, domain, stored))
                })
                .collect()
        });
        reading.await.unwrap_or_default()
    }
}

impl State {
    /// The domain wants no reports.
    fn forget(&mut self, key: &(Day, Domain)) {
        self.days.remove(key);
        self.silent.insert(key.1.clone());
    }

    /// What is to be saved. What is of a day that is over leaves the memory.
    fn changes(&mut self, today: Day) -> (Vec<Change<String, Row>>, bool) {
        let (mut changes, mut has_late) = (Vec::new(), false);
        self.days.retain(|(day, domain), entry| {
            if !entry.wanted {
                return true;
            }
            if std::mem::take(&mut entry.dirty) {
                let stored = Stored { tally: entry.tally.clone(), ..Stored::default() };
                changes.push(Change::Put(key(*day, domain.as_str()), Row::V1(stored)));
                has_late |= *day < today;
            }
            *day >= today
        });
        (changes, has_late)
    }
}
