//! `check_host()` (RFC 7208 section 4).

use std::net::IpAddr;

use postrider_dns::{BoxFuture, DnsError, Reply, Resolver, literal_address};
use postrider_mail::Domain;

use super::macros::{MacroString, Values};
use super::record::{Directive, Mechanism, Prefix, Record, in_network, is_spf};
use super::{Lookup, SpfQuery, SpfReport, SpfResult};
use crate::verify::tags::printable;

/// Hosts of one MX term, and names of the client's address, that are looked up (RFC 7208
/// section 4.6.4).
const MOST_NAMES: usize = 10;

/// One evaluation, with what it has looked up so far.
pub(super) struct Evaluation<'a> {
    resolver: &'a dyn Resolver,
    query: SpfQuery<'a>,
    local: &'a str,
    sender_domain: &'a str,
    most_lookups: usize,
    most_void: usize,
    /// The true names of the address, once asked for.
    names: Option<Vec<String>>,
    report: SpfReport,
}

/// That the evaluation is over, with this result.
struct Over(SpfResult);

impl<'a> Evaluation<'a> {
    pub(super) fn new(
        resolver: &'a dyn Resolver,
        query: &SpfQuery<'a>,
        most_lookups: usize,
        most_void: usize,
    ) -> Evaluation<'a> {
        // RFC 7208 section 5: an IPv4 address in an IPv6 one is an IPv4 address.
        let query = SpfQuery { ip: query.ip.to_canonical(), ..*query };
        // RFC 7208 section 4.3: without a local part it is that of the postmaster.
        let (local, sender_domain) = query.sender.rsplit_once('@').unwrap_or(("", query.domain));
        let report = SpfReport {
            result: SpfResult::None,
            domain: printable(query.domain),
            record: None,
            matched: None,
            reason: String::new(),
            explanation: None,
            lookups: Vec::new(),
            void: 0,
        };
        let local = if local.is_empty() { "postmaster" } else { local };
        Evaluation { resolver, query, local, sender_domain, most_lookups, most_void, names: None, report }
    }

    /// Evaluates the record of the query's domain.
    pub(super) async fn whole(&mut self) -> SpfResult {
        let domain = self.query.domain.strip_suffix('.').unwrap_or(self.query.domain).to_ascii_lowercase();
        if !is_queryable(&domain) || !domain.contains('.') {
            self.say(format!("{} is no domain name", printable(&domain)));
            return SpfResult::None;
        }
        self.check(domain, 0).await
    }

    /// Why, unless it has been said already.
    pub(super) fn say(&mut self, reason: impl Into<String>) {
        if self.report.reason.is_empty() {
            self.report.reason = reason.into();
        }
    }

    pub(super) fn into_report(mut self, result: SpfResult) -> SpfReport {
        self.report.result = result;
        self.report.explanation = self.report.explanation.filter(|words| !words.is_empty());
        if self.report.reason.is_empty() {
            self.report.reason = match &self.report.matched {
                Some(term) => format!("{term} says so of {}", self.query.ip),
                None => format!("no term of the record says anything about {}", self.query.ip),
            };
        }
        self.report
    }

    /// The result of one record, `depth` includes and redirects away from the first.
    fn check(&mut self, domain: String, depth: usize) -> BoxFuture<'_, SpfResult> {
        Box::pin(async move {
            let record = match self.record(&domain, depth).await {
                Ok(record) => record,
                Err(Over(result)) => return result,
            };
            match self.directives(&record, &domain, depth).await {
                Ok(Some(result)) => {
                    if result == SpfResult::Fail && self.report.explanation.is_none() {
                        self.explain(&record, &domain).await;
                    }
                    result
                }
                Ok(None) => self.redirect(&record, &domain, depth).await.unwrap_or_else(|Over(result)| result),
                Err(Over(result)) => result,
            }
        })
    }

    /// RFC 7208 sections 4.4 and 4.5: exactly one record.
    async fn record(&mut self, domain: &str, depth: usize) -> Result<Record, Over> {
        let texts = match self.resolver.txt(domain).await {
            Ok(answer) => answer.value,
            Err(error) if error.is_temporary() => return Err(self.unavailable(domain, &error)),
            Err(_) => Vec::new(),
        };
        let mut records = texts.iter().filter(|text| is_spf(text));
        let Some(text) = records.next() else {
            self.say(format!("{domain} has no SPF record"));
            return Err(Over(SpfResult::None));
        };
        if records.next().is_some() {
            self.say(format!("{domain} has more than one SPF record: exactly one may begin with v=spf1"));
            return Err(Over(SpfResult::PermError));
        }
        if depth == 0 {
            self.report.record = Some(printable(text));
        }
        Record::parse(text).map_err(|fault| {
            self.say(format!("in the SPF record of {domain} {fault}"));
            Over(SpfResult::PermError)
        })
    }

    /// The first directive that matches decides (RFC 7208 section 4.6.2).
    async fn directives(&mut self, record: &Record, domain: &str, depth: usize) -> Result<Option<SpfResult>, Over> {
        for directive in &record.directives {
            if self.matches(directive, domain, depth).await? {
                if depth == 0 || !matches!(directive.mechanism, Mechanism::All) {
                    let of = if depth == 0 { String::new() } else { format!(" of {domain}") };
                    self.report.matched = Some(format!("{}{of}", directive.text));
                }
                return Ok(Some(directive.result));
            }
        }
        Ok(None)
    }

    async fn matches(&mut self, directive: &Directive, domain: &str, depth: usize) -> Result<bool, Over> {
        let ip = self.query.ip;
        let term = &directive.text;
        match &directive.mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Ip(network, length) => Ok(in_network(*network, *length, ip)),
            Mechanism::Include(target) => self.include(target, term, domain, depth).await,
            Mechanism::A(target, prefix) => {
                let target = self.target(target.as_ref(), domain).await;
                self.count(domain, term, &target, depth)?;
                let found = self.addresses(&target).await?;
                Ok(self.has(&found, *prefix))
            }
            Mechanism::Mx(target, prefix) => {
                let target = self.target(target.as_ref(), domain).await;
                self.count(domain, term, &target, depth)?;
                self.exchangers(&target, *prefix).await
            }
            Mechanism::Ptr(target) => {
                let target = self.target(target.as_ref(), domain).await;
                self.count(domain, term, &target, depth)?;
                Ok(self.names().await.iter().any(|name| is_within(name, &target)))
            }
            Mechanism::Exists(target) => {
                let target = self.target(Some(target), domain).await;
                self.count(domain, term, &target, depth)?;
                // RFC 7208 section 5.7: an A record, whatever the client's family.
                let found = self.family(&target, true).await?;
                Ok(!found.is_empty())
            }
        }
    }

    /// RFC 7208 section 5.2
    async fn include(&mut self, target: &MacroString, term: &str, domain: &str, depth: usize) -> Result<bool, Over> {
        let target = self.target(Some(target), domain).await;
        self.count(domain, term, &target, depth)?;
        match self.included(target, depth).await {
            SpfResult::Pass => Ok(true),
            SpfResult::Fail | SpfResult::SoftFail | SpfResult::Neutral => {
                self.report.matched = None;
                Ok(false)
            }
            SpfResult::TempError => Err(Over(SpfResult::TempError)),
            SpfResult::PermError | SpfResult::None => Err(Over(SpfResult::PermError)),
        }
    }

    /// The record at a name that another names. An include's explanation is never used (RFC
    /// 7208 section 6.2), so none is asked for.
    async fn included(&mut self, target: String, depth: usize) -> SpfResult {
        if !is_queryable(&target) {
            self.say(format!("{} is no domain name", printable(&target)));
            return SpfResult::PermError;
        }
        let kept = self.report.explanation.replace(String::new());
        let result = self.check(target, depth + 1).await;
        self.report.explanation = kept;
        result
    }

    /// RFC 7208 section 6.1: where no term matches, another record decides.
    async fn redirect(&mut self, record: &Record, domain: &str, depth: usize) -> Result<SpfResult, Over> {
        let Some((target, term)) = &record.redirect else { return Ok(SpfResult::Neutral) };
        let target = self.target(Some(target), domain).await;
        self.count(domain, term, &target, depth)?;
        if !is_queryable(&target) {
            self.say(format!("{} is no domain name", printable(&target)));
            return Err(Over(SpfResult::PermError));
        }
        match self.check(target, depth + 1).await {
            SpfResult::None => Err(Over(SpfResult::PermError)),
            result => Ok(result),
        }
    }

    /// Counts a term that asks the DNS.
    fn count(&mut self, domain: &str, term: &str, target: &str, depth: usize) -> Result<(), Over> {
        if self.report.lookups.len() >= self.most_lookups {
            self.say(format!(
                "more than {} terms ask the DNS; the first too many is {term} of {domain}",
                self.most_lookups
            ));
            return Err(Over(SpfResult::PermError));
        }
        self.report.lookups.push(Lookup {
            domain: domain.to_owned(),
            term: term.to_owned(),
            target: printable(target),
            depth,
            void: false,
        });
        Ok(())
    }

    /// That the latest term found nothing.
    fn void(&mut self) -> Result<(), Over> {
        let Some(latest) = self.report.lookups.last_mut() else { return Ok(()) };
        if std::mem::replace(&mut latest.void, true) {
            return Ok(());
        }
        let said = format!("more than {} terms find nothing; the last is {}", self.most_void, latest.term);
        self.report.void += 1;
        if self.report.void > self.most_void {
            self.say(said);
            return Err(Over(SpfResult::PermError));
        }
        Ok(())
    }

    fn unavailable(&mut self, name: &str, error: &DnsError) -> Over {
        self.say(format!("{}: {error}", printable(name)));
        Over(SpfResult::TempError)
    }

    /// What an answer holds: nothing where there is nothing.
    fn found<T>(&mut self, name: &str, reply: Reply<T>) -> Result<Vec<T>, Over> {
        match reply {
            Ok(answer) => Ok(answer.value),
            Err(error) if error.is_temporary() => Err(self.unavailable(name, &error)),
            Err(_) => Ok(Vec::new()),
        }
    }

    async fn family(&mut self, name: &str, v4: bool) -> Result<Vec<IpAddr>, Over> {
        // Neither a malformed name nor an address has records (RFC 7208 section 4.8).
        let (mut found, mut partial) = (Vec::new(), false);
        if is_queryable(name) && literal_address(name).is_none() {
            let reply = self.resolver.addresses(name).await;
            partial = reply.as_ref().is_ok_and(|answer| answer.partial);
            found = self.found(name, reply)?;
        }
        found.retain(|address| address.is_ipv4() == v4);
        if found.is_empty() && partial {
            self.say(format!("the {} addresses of {name} can not be looked up", if v4 { "IPv4" } else { "IPv6" }));
            return Err(Over(SpfResult::TempError));
        }
        if found.is_empty() {
            self.void()?;
        }
        Ok(found)
    }

    async fn addresses(&mut self, name: &str) -> Result<Vec<IpAddr>, Over> {
        self.family(name, self.query.ip.is_ipv4()).await
    }

    fn has(&self, addresses: &[IpAddr], prefix: Prefix) -> bool {
        addresses.iter().any(|address| prefix.holds(*address, self.query.ip))
    }

    /// RFC 7208 section 5.4. The domain itself is not looked up when it has no MX, nor is a name
    /// that mail can not go to (an underscore in it, say): our resolver asks for no such MX.
    async fn exchangers(&mut self, name: &str, prefix: Prefix) -> Result<bool, Over> {
        let exchangers = match name.parse::<Domain>() {
            Ok(domain) if domain.literal().is_none() => {
                let reply = self.resolver.mx(&domain).await;
                self.found(name, reply)?
            }
            _ => Vec::new(),
        };
        if exchangers.is_empty() {
            self.void()?;
        }
        if exchangers.len() > MOST_NAMES {
            self.say(format!("{name} has more than {MOST_NAMES} mail exchangers"));
            return Err(Over(SpfResult::PermError));
        }
        for exchanger in exchangers.iter().filter(|mx| !mx.exchange.is_empty()) {
            let found = self.addresses(&exchanger.exchange).await?;
            if self.has(&found, prefix) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The names of the address that lead back to it (RFC 7208 section 5.5): at most ten, and
    /// an error is as if there were none.
    async fn names(&mut self) -> &[String] {
        if self.names.is_none() {
            let ip = self.query.ip;
            let mut names = self.resolver.ptr(ip).await.map(|answer| answer.value).unwrap_or_default();
            names.truncate(MOST_NAMES);
            let mut valid = Vec::new();
            for name in names.into_iter().filter(|name| is_queryable(name) && literal_address(name).is_none()) {
                let addresses = self.resolver.addresses(&name).await;
                if addresses.is_ok_and(|answer| answer.value.contains(&ip)) {
                    valid.push(name.to_ascii_lowercase());
                }
            }
            self.names = Some(valid);
        }
        self.names.as_deref().unwrap_or_default()
    }

    /// The name that a term asks about.
    async fn target(&mut self, target: Option<&MacroString>, domain: &str) -> String {
        match target {
            None => domain.to_owned(),
            Some(target) => {
                let validated = self.validated(target, domain).await;
                target.expand_domain(&self.values(domain, &validated))
            }
        }
    }

    /// `%{p}`: the domain itself, else a name below it, else any (RFC 7208 section 7.3).
    async fn validated(&mut self, text: &MacroString, domain: &str) -> String {
        if !text.needs_validated() {
            return String::new();
        }
        let names = self.names().await;
        let best = names.iter().find(|name| *name == domain);
        let best = best.or_else(|| names.iter().find(|name| is_within(name, domain))).or(names.first());
        best.cloned().unwrap_or_else(|| "unknown".to_owned())
    }

    fn values<'v>(&'v self, domain: &'v str, validated: &'v str) -> Values<'v> {
        Values {
            ip: self.query.ip,
            local: self.local,
            sender_domain: self.sender_domain,
            domain,
            helo: self.query.helo,
            receiver: self.query.receiver,
            validated,
            time: self.query.at.as_millis() / 1000,
        }
    }

    /// RFC 7208 section 6.2: the domain's words on the failure. Whatever goes wrong with them,
    /// the result stays.
    async fn explain(&mut self, record: &Record, domain: &str) {
        let Some(target) = &record.explanation else { return };
        let target = self.target(Some(target), domain).await;
        if !is_queryable(&target) {
            return;
        }
        let Ok(answer) = self.resolver.txt(&target).await else { return };
        let [text] = answer.value.as_slice() else { return };
        let Some(text) = MacroString::explanation(text) else { return };
        let validated = self.validated(&text, domain).await;
        self.report.explanation = Some(printable(&text.expand(&self.values(domain, &validated))));
    }
}

/// Whether a question can be asked about a name (RFC 1035 section 2.3.4, RFC 7208 section
/// 4.3).
fn is_queryable(name: &str) -> bool {
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|b| matches!(b, b' '..=b'~'));
    name.len() <= 253 && name.split('.').all(label)
}

/// Whether a name is a domain or lies below it.
fn is_within(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}
