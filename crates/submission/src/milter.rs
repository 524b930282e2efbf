//! The operator's own filters, asked at the end of DATA: after the rules have let a message
//! through, and before it is signed.

use std::sync::Arc;

use bytes::Bytes;
use postrider_base::metrics::FilterVerdict;
use postrider_base::{Dialer, Metrics};
use postrider_filter::milter::{Changes, Letter, Macro, Step, Verdict, ask};
use postrider_filter::{MilterSettings, OtherChanges, WhenDown};
use postrider_mail::{EmailAddress, HeaderBlock, TlsInfo};
use postrider_spool::{Content, NewMessage};

use crate::Refusal;

/// Fields that the rules have decided about: no filter changes them.
const DECIDED: [&str; 3] = ["From", "Sender", "Return-Path"];

/// All filters, in the order in which they are asked.
pub(crate) struct Filters {
    filters: Vec<MilterSettings>,
    dialer: Arc<dyn Dialer>,
    hostname: String,
    metrics: Metrics,
}

impl Filters {
    pub(crate) fn new(filters: &[MilterSettings], dialer: Arc<dyn Dialer>, hostname: &str, metrics: &Metrics) -> Self {
        Self { filters: filters.to_vec(), dialer, hostname: hostname.to_owned(), metrics: metrics.clone() }
    }

    pub(crate) fn are_there(&self) -> bool {
        !self.filters.is_empty()
    }

    /// Asks one filter after the other; each sees what the ones before have made of a message. It is
    /// as they leave it, or nothing when one has it thrown away.
    pub(crate) async fn judge(
        &self,
        message: NewMessage,
        tls: Option<&TlsInfo>,
    ) -> Result<Option<NewMessage>, Refusal> {
        let mut message = message;
        let mut end = FilterVerdict::Accepted;
        for filter in &self.filters {
            let id = message.id;
            let parts = Parts::of(&message.content)?;
            let verdict = self.ask(filter, &message, &parts, tls).await;
            match verdict.and_then(|verdict| Ok((parts.changed(&verdict)?, verdict))) {
                Ok((content, Verdict::Accept(changes))) => {
                    if let Some(why) = &changes.quarantine {
                        tracing::info!(%id, filter = %filter.socket, %why, "a filter has the message held");
                        message.origin.hold = true;
                        end = FilterVerdict::Quarantined;
                    }
                    if let Some(content) = content {
                        message.content = content;
                    }
                }
                Ok((_, Verdict::Discard)) => {
                    tracing::info!(%id, filter = %filter.socket, "a filter discards the message");
                    self.count(FilterVerdict::Discarded);
                    return Ok(None);
                }
                Ok((_, Verdict::Refuse(reply))) => {
                    tracing::info!(filter = %filter.socket, %reply, "a filter refuses a message");
                    self.count(FilterVerdict::Refused);
                    return Err(Refusal::Filtered(Box::new(reply)));
                }
                Err(error) => {
                    tracing::warn!(%id, filter = %filter.socket, %error, "a filter gives no verdict");
                    if filter.when_down == WhenDown::Tempfail {
                        self.count(FilterVerdict::Failed);
                        return Err(Refusal::FilterDown);
                    }
                    end = FilterVerdict::Skipped;
                }
            }
        }
        self.count(end);
        Ok(Some(message))
    }

    fn count(&self, verdict: FilterVerdict) {
        self.metrics.filtered.of(verdict).inc();
    }

    /// What a filter says, without changes that may not be made.
    async fn ask(
        &self,
        filter: &MilterSettings,
        message: &NewMessage,
        parts: &Parts,
        tls: Option<&TlsInfo>,
    ) -> Result<Verdict, postrider_filter::Error> {
        let (id, origin, envelope) = (message.id.to_string(), &message.origin, &message.envelope);
        let ip = origin.client_ip.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
        let (address, helo) = (ip.to_canonical().to_string(), origin.client_name.as_deref().unwrap_or("unknown"));
        let sender = envelope.sender.as_ref().map_or("", EmailAddress::as_str);
        let name = format!("{helo} [{address}]");
        let mut macros: Vec<Macro<'_>> = vec![
            (Step::Connect, "j", &self.hostname),
            (Step::Connect, "{daemon_name}", "postrider"),
            (Step::Connect, "{client_addr}", &address),
            (Step::Connect, "{client_name}", "unknown"),
            (Step::Connect, "_", &name),
        ];
        if let Some(tls) = tls {
            macros.extend([(Step::Helo, "{tls_version}", &*tls.version), (Step::Helo, "{cipher}", &*tls.cipher)]);
        }
        macros.extend([(Step::Mail, "i", &*id), (Step::Mail, "{mail_addr}", sender)]);
        if let Some(user) = &origin.credential {
            // Filters take mail with either for a known client's.
            macros.extend([(Step::Mail, "{auth_type}", "PLAIN"), (Step::Mail, "{auth_authen}", user)]);
        }
        let recipients: Vec<&str> = envelope.recipients.iter().map(|recipient| recipient.address.as_str()).collect();
        let letter = Letter {
            client_ip: ip,
            helo,
            sender,
            recipients: &recipients,
            header: &parts.header,
            body: &parts.body,
            macros: &macros,
        };
        match ask(&*self.dialer, filter, letter).await? {
            Verdict::Accept(changes) => self.permitted(filter, changes).map(Verdict::Accept),
            verdict => Ok(verdict),
        }
    }

    fn permitted(&self, filter: &MilterSettings, changes: Changes) -> Result<Changes, postrider_filter::Error> {
        let mut changes = changes;
        let asked = changes.header.len();
        changes.header.retain(|change| !DECIDED.iter().any(|name| change.is(name)));
        let ignored = u32::try_from(asked - changes.header.len()).unwrap_or(u32::MAX).saturating_add(changes.ignored);
        if ignored > 0 && filter.other_changes == OtherChanges::Refuse {
            let what = "it changes From, Sender or Return-Path".to_owned();
            return Err(postrider_filter::Error::Garbage(what));
        }
        self.metrics.filter_changes_ignored.inc_by(ignored.into());
        Ok(changes)
    }
}

/// A message apart: nothing is copied.
struct Parts {
    /// The field that the relay has put in front, which filters are not shown: they are before
    /// it, not behind it.
    received: Bytes,
    /// The other fields.
    header: Bytes,
    body: Vec<Bytes>,
}

impl Parts {
    /// Of content whose first piece has the whole header, with the relay's own field first.
    ///
    /// # Errors
    /// The header is over its bounds with the fields that the relay has added: nothing can be
    /// said of what is header then, and what is body.
    fn of(content: &Content) -> Result<Self, postrider_mail::Error> {
        let mut pieces = content.chunks().iter();
        let front = pieces.next().cloned().unwrap_or_default();
        let block = HeaderBlock::parse(&front)?;
        let own = block.fields().next().map_or(0, |field| field.raw().len());
        let (end, body) = (block.len(), block.body_offset());
        let rest = front.slice(body..);
        let rest = (!rest.is_empty()).then_some(rest);
        Ok(Self {
            received: front.slice(..own),
            header: front.slice(own..end),
            body: rest.into_iter().chain(pieces.cloned()).collect(),
        })
    }

    /// The message as a verdict leaves it, where that is not as it was.
    ///
    /// # Errors
    /// Its changes lead beyond the bounds of a header: the filter's fault, not the client's.
    fn changed(&self, verdict: &Verdict) -> Result<Option<Content>, postrider_filter::Error> {
        let Verdict::Accept(changes) = verdict else { return Ok(None) };
        if changes.header.is_empty() {
            return Ok(None);
        }
        let beyond = |error| postrider_filter::Error::Garbage(format!("its changes make another header: {error}"));
        let header = changes.apply(&self.header).map_err(beyond)?;
        let front = Bytes::from([&self.received[..], &header, b"\r\n"].concat());
        HeaderBlock::parse(&front).map_err(beyond)?;
        let content = std::iter::once(front).chain(self.body.iter().cloned()).collect();
        Ok(Some(Content::new(content)))
    }
}

#[cfg(test)]
mod tests;
