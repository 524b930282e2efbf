//! The links of chains of trust, kept for a while.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use hickory_proto::dnssec::rdata::DNSSECRData;
use hickory_proto::op::{DnsRequest, DnsResponse, Message, Query};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::net::xfer::DnsHandle;
use hickory_resolver::net::{DnsError as Semantic, NetError};
use parking_lot::Mutex;
use postrider_base::Clock;
use tokio::time::Instant;

use crate::cache::Generations;
use crate::trust::Keys;

/// Hands on what the validator needs of each answer, and keeps the keys of zones, what their
/// parents say of them and where zones begin: the validator asks for these with every answer of
/// a zone whose keys it does not know. They are as they came: it is the validator that proves
/// them, each time anew.
#[derive(Clone)]
pub(crate) struct Links<H> {
    inner: H,
    clock: Clock,
    kept: Kept,
    /// Keys that were proved, which are the answer to who asks for them.
    known: Vec<Arc<Keys>>,
}

type Kept = Arc<Mutex<Generations<Query, Link>>>;

struct Link {
    since: Instant,
    until: Instant,
    answer: Result<DnsResponse, NetError>,
}

/// What links are made of.
const KINDS: [RecordType; 3] = [RecordType::DNSKEY, RecordType::DS, RecordType::NS];

/// The longest that a link is kept, so that one which came damaged or forged does
/// no harm for long.
const LONGEST: Duration = Duration::from_secs(300);

impl<H> Links<H> {
    /// Keeps at most so many answers.
    pub(crate) fn new(inner: H, clock: Clock, entries: usize) -> Links<H> {
        Links { inner, clock, kept: Arc::new(Mutex::new(Generations::new(entries))), known: Vec::new() }
    }

    /// The same, which answers with these keys who asks for them.
    pub(crate) fn with(&self, known: Vec<Arc<Keys>>) -> Links<H>
    where
        H: Clone,
    {
        Links { known, ..self.clone() }
    }

    /// Forgets the links at this name: one of them may be forged.
    pub(crate) fn forget(&self, name: &Name) {
        let mut kept = self.kept.lock();
        KINDS.into_iter().for_each(|kind| kept.remove(&Query::query(name.clone(), kind)));
    }

    fn known(&self, query: &Query) -> Option<Result<DnsResponse, NetError>> {
        if query.query_type == RecordType::DNSKEY
            && let Some(keys) = self.known.iter().find(|keys| keys.zone == *query.name())
        {
            let mut message = Message::query();
            message.add_query(query.clone()).add_answers(keys.records.iter().cloned());
            return Some(DnsResponse::from_message(message.into_response()).map_err(NetError::from));
        }
        let (mut kept, now) = (self.kept.lock(), self.clock.instant());
        let link = kept.get(query).filter(|link| link.until > now)?;
        Some(link.answer.clone().map(|answer| aged(answer, now - link.since)))
    }
}

impl<H: DnsHandle> DnsHandle for Links<H> {
    type Response = Pin<Box<dyn Stream<Item = Result<DnsResponse, NetError>> + Send>>;
    type Runtime = H::Runtime;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let is_link = |query: &&Query| KINDS.contains(&query.query_type);
        let Some(query) = request.queries.first().filter(is_link).cloned() else {
            return Box::pin(self.inner.send(request).map(without_extras));
        };
        if let Some(answer) = self.known(&query) {
            return Box::pin(stream::once(async { answer }));
        }
        let (kept, clock) = (self.kept.clone(), self.clock.clone());
        Box::pin(self.inner.send(request).map(without_extras).inspect(move |answer| {
            if let Some(ttl) = time_to_keep(answer) {
                let since = clock.instant();
                kept.lock().insert(query.clone(), Link { since, until: since + ttl, answer: answer.clone() });
            }
        }))
    }
}

/// An answer without what comes beside it, unasked: each record would be
/// validated up to the root, and none is used.
fn without_extras(answer: Result<DnsResponse, NetError>) -> Result<DnsResponse, NetError> {
    let mut answer = answer?;
    answer.additionals.clear();
    if answer.answers.is_empty() {
        return Ok(answer);
    }
    let is_proof = |record: &Record| match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) => signature.input().type_covered != RecordType::NS,
        data => data.record_type() != RecordType::NS,
    };
    answer.authorities.retain(is_proof);
    Ok(answer)
}

/// An answer as a cache gives it that has kept it for so long: what it proves is not to be
/// believed for longer than its zone allows.
fn aged(mut answer: DnsResponse, age: Duration) -> DnsResponse {
    let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
    let Message { answers, authorities, .. } = &mut *answer;
    answers.iter_mut().chain(authorities).for_each(|record| record.ttl = record.ttl.saturating_sub(age));
    answer
}

/// `None` for what says nothing.
fn time_to_keep(answer: &Result<DnsResponse, NetError>) -> Option<Duration> {
    let seconds = match answer {
        Ok(response) => response.answers.iter().chain(&response.authorities).map(|record| record.ttl).min()?,
        Err(NetError::Dns(Semantic::NoRecordsFound(absence))) => absence.negative_ttl?,
        Err(_) => return None,
    };
    Some(Duration::from_secs(seconds.into()).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use hickory_proto::op::{DnsRequestOptions, ResponseCode};
    use hickory_proto::rr::rdata::NS;
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    use hickory_resolver::net::xfer::FirstAnswer as _;
    use postrider_base::Timestamp;

    /// Answers every question with an NS record and counts them.
    #[derive(Clone, Default)]
    struct Counts(Arc<AtomicUsize>);

    impl DnsHandle for Counts {
        type Response = stream::Once<std::future::Ready<Result<DnsResponse, NetError>>>;
        type Runtime = TokioRuntimeProvider;

        fn send(&self, request: DnsRequest) -> Self::Response {
            self.0.fetch_add(1, Ordering::Relaxed);
            let name = request.queries[0].name().clone();
            let answer = if name.is_root() {
                Err(NetError::from(Semantic::ResponseCode(ResponseCode::ServFail)))
            } else {
                let mut message = Message::query();
                message.add_answer(Record::from_rdata(name.clone(), 60, RData::NS(NS(name))));
                Ok(DnsResponse::from_message(message.into_response()).unwrap())
            };
            stream::once(std::future::ready(answer))
        }
    }

    async fn ask(links: &Links<Counts>, name: &str, kind: RecordType) -> usize {
        let query = Query::query(Name::from_ascii(name).unwrap(), kind);
        let _ = links.lookup(query, DnsRequestOptions::default()).first_answer().await;
        links.inner.0.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn links_are_asked_for_once_in_their_time_and_nothing_else_is_kept() {
        let clock = Clock::simulated(Timestamp::from_millis(0));
        let links = Links::new(Counts::default(), clock, 10);
        assert_eq!(ask(&links, "com.", RecordType::DNSKEY).await, 1);
        assert_eq!(ask(&links, "COM.", RecordType::DNSKEY).await, 1);
        assert_eq!(ask(&links, "com.", RecordType::DS).await, 2);
        assert_eq!(ask(&links, "com.", RecordType::MX).await, 3);
        assert_eq!(ask(&links, "com.", RecordType::MX).await, 4);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(ask(&links, "com.", RecordType::DNSKEY).await, 5);
        links.forget(&Name::from_ascii("com.").unwrap());
        assert_eq!(ask(&links, "com.", RecordType::DNSKEY).await, 6);
        assert_eq!(ask(&links, "com.", RecordType::DNSKEY).await, 6);
        // A failure says nothing.
        assert_eq!(ask(&links, ".", RecordType::DNSKEY).await, 7);
        assert_eq!(ask(&links, ".", RecordType::DNSKEY).await, 8);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_link_runs_while_it_is_kept() {
        let links = Links::new(Counts::default(), Clock::simulated(Timestamp::from_millis(0)), 10);
        let mut ttls = Vec::new();
        for _ in 0..2 {
            let query = Query::query(Name::from_ascii("com.").unwrap(), RecordType::DS);
            let answer = links.lookup(query, DnsRequestOptions::default()).first_answer().await.unwrap();
            ttls.push(answer.answers[0].ttl);
            tokio::time::advance(Duration::from_secs(20)).await;
        }
        assert_eq!((ttls, ask(&links, "com.", RecordType::DS).await), (vec![60, 40], 1));
    }
}
