//! Questions to real name servers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as Semantic, NetError};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Resolver as Hickory, TokioResolver};
use postrider_base::Metrics;
use postrider_mail::Domain;

use crate::answer::{FOREVER, literal_answer};
use crate::dnssec::Dnssec;
use crate::proof;
use crate::{Answer, BoxFuture, DnsError, Mx, NameServer, Reply, Resolver, Settings, Tlsa, Validation};

/// The longest that an answer is kept that ought to have been validated and could
/// not be: nobody who keeps us from it once is to be believed for a day.
const MEANWHILE: Duration = Duration::from_secs(5 * 60);

/// Asks the name servers of the system or of the settings, over UDP and, for
/// long answers, TCP. It keeps nothing: put it inside a
/// [`Cached`](crate::Cached).
///
/// Every name is taken as complete: search lists and `/etc/hosts` do not apply.
/// Clones share everything.
#[derive(Clone)]
pub struct HickoryResolver {
    inner: TokioResolver,
    dnssec: Option<Arc<Dnssec>>,
}

impl std::fmt::Debug for HickoryResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HickoryResolver")
    }
}

impl HickoryResolver {
    /// A resolver for these settings.
    ///
    /// # Errors
    /// [`DnsError::Setup`] when no servers are given and those of
    /// `/etc/resolv.conf` can not be read, or when the trust anchor can not.
    pub fn new(settings: &Settings, metrics: &Metrics) -> Result<HickoryResolver, DnsError> {
        let setup = |error: NetError| DnsError::Setup { reason: error.to_string().into() };
        let (servers, mut options) = if settings.servers.is_empty() {
            read_system_conf().map_err(setup)?
        } else {
            let servers = settings.servers.iter().map(server).collect();
            (ResolverConfig::from_name_servers(servers), ResolverOpts::default())
        };
        set_options(&mut options, settings);
        let dnssec = Dnssec::new(settings, &servers, &options, metrics)?.map(Arc::new);
        let builder = Hickory::builder_with_config(servers, TokioRuntimeProvider::default());
        let inner = builder.with_options(options).build().map_err(setup)?;
        Ok(HickoryResolver { inner, dnssec })
    }

    /// Looks from time to time whether the name servers let answers be
    /// validated, for ever. Without it that is looked at once, before the first
    /// answer.
    pub async fn keep_probing(&self) {
        match &self.dnssec {
            Some(dnssec) => dnssec.keep_probing().await,
            None => std::future::pending().await,
        }
    }

    /// Proved records where they can be, else those that the servers give.
    async fn proved_records<T>(
        &self,
        name: Result<Name, DnsError>,
        kind: RecordType,
        pick: fn(&RData) -> Option<T>,
    ) -> Reply<T> {
        let name = name?;
        if let Some(dnssec) = &self.dnssec
            && let Some(handle) = dnssec.handle(&name).await
        {
            let mut path = proof::Path::new(handle, name);
            let reply = path.records(kind, pick).await;
            if matches!(reply, Err(DnsError::Bogus { .. })) {
                path.names().for_each(|name| handle.forget(name));
            }
            return reply;
        }
        let mut reply = self.records(Ok(name), kind, pick).await;
        if let (Ok(answer), true) = (&mut reply, self.dnssec.is_some()) {
            answer.ttl = answer.ttl.min(MEANWHILE);
        }
        reply
    }

    async fn records<T>(
        &self,
        name: Result<Name, DnsError>,
        kind: RecordType,
        pick: fn(&RData) -> Option<T>,
    ) -> Reply<T> {
        let lookup = self.inner.lookup(name?, kind).await.map_err(|e| no_answer(&e))?;
        // Beside what was asked for come aliases and signatures. They are no
        // value, but what led to the value limits how long it may be kept.
        let ttl = lookup.answers().iter().map(|record| record.ttl).min();
        let ttl = ttl.map_or(Duration::ZERO, |ttl| Duration::from_secs(ttl.into()));
        let value: Vec<T> = lookup.answers().iter().filter_map(|record| pick(&record.data)).collect();
        if value.is_empty() {
            return Err(DnsError::NoRecords { ttl, proved: false });
        }
        Ok(Answer { value, ttl, authenticated: false, alias: None, partial: false })
    }
}

impl Resolver for HickoryResolver {
    fn mx<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Reply<Mx>> {
        Box::pin(async move {
            if domain.literal().is_some() {
                return Err(DnsError::NoRecords { ttl: FOREVER, proved: false });
            }
            let name = complete(domain.as_str());
            let mut answer = self.proved_records(name, RecordType::MX, mx_record).await?;
            answer.value.sort();
            Ok(answer)
        })
    }

    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Reply<IpAddr>> {
        Box::pin(async move {
            if let Some(answer) = literal_answer(host) {
                return Ok(answer);
            }
            let name = complete(host);
            let v4 = self.records(name.clone(), RecordType::A, RData::ip_addr);
            let v6 = self.records(name, RecordType::AAAA, RData::ip_addr);
            let (v4, v6) = join(v4, v6).await;
            both_families(v4, v6)
        })
    }

    fn proved_addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Reply<IpAddr>> {
        Box::pin(async move {
            if let Some(answer) = literal_answer(host) {
                return Ok(answer);
            }
            let name = complete(host);
            let v4 = self.proved_records(name.clone(), RecordType::A, RData::ip_addr);
            let v6 = self.proved_records(name, RecordType::AAAA, RData::ip_addr);
            let (v4, v6) = join(v4, v6).await;
            both_families(v4, v6)
        })
    }

    fn tlsa<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, Reply<Tlsa>> {
        // RFC 6698 section 3
        let name = complete(&format!("_{port}._tcp.{host}"));
        Box::pin(self.proved_records(name, RecordType::TLSA, tlsa_record))
    }

    fn txt<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Reply<String>> {
        Box::pin(self.records(complete(name), RecordType::TXT, txt_record))
    }

    fn ptr<'a>(&'a self, ip: IpAddr) -> BoxFuture<'a, Reply<String>> {
        let name = Ok(Name::from(ip));
        Box::pin(self.records(name, RecordType::PTR, ptr_record))
    }

    fn validation(&self) -> Validation {
        self.dnssec.as_ref().map_or(Validation::Off, |dnssec| dnssec.validation())
    }
}

fn server(server: &NameServer) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()]
        .into_iter()
        .map(|mut connection| {
            connection.port = server.0.port();
            connection
        })
        .collect();
    NameServerConfig::new(server.0.ip(), true, connections)
}

fn set_options(options: &mut ResolverOpts, settings: &Settings) {
    options.timeout = settings.timeout.into();
    // The library counts what follows the first try.
    options.attempts = settings.attempts.saturating_sub(1) as usize;
    options.max_active_requests = settings.max_active_requests as usize;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.validate = false;
    options.edns0 = true;
    options.try_tcp_on_error = true;
}

/// A name that no search list is applied to.
pub(crate) fn complete(name: &str) -> Result<Name, DnsError> {
    let mut name = Name::from_ascii(name).map_err(|_| DnsError::Invalid)?;
    if name.num_labels() == 0 {
        return Err(DnsError::Invalid);
    }
    name.set_fqdn(true);
    Ok(name)
}

fn mx_record(data: &RData) -> Option<Mx> {
    match data {
        RData::MX(mx) => Some(Mx { preference: mx.preference, exchange: host_name(&mx.exchange) }),
        _ => None,
    }
}

fn tlsa_record(data: &RData) -> Option<Tlsa> {
    match data {
        RData::TLSA(tlsa) => Some(Tlsa {
            usage: tlsa.cert_usage.into(),
            selector: tlsa.selector.into(),
            matching: tlsa.matching.into(),
            data: tlsa.cert_data.clone(),
        }),
        _ => None,
    }
}

fn ptr_record(data: &RData) -> Option<String> {
    match data {
        RData::PTR(name) => Some(host_name(&name.0)),
        _ => None,
    }
}

fn txt_record(data: &RData) -> Option<String> {
    match data {
        RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
        _ => None,
    }
}

/// Octets that are not printable ASCII come out as `\DDD` (RFC 1035 section 5.1).
pub(crate) fn host_name(name: &Name) -> String {
    let text = name.to_ascii();
    text.strip_suffix('.').unwrap_or(&text).to_ascii_lowercase()
}

fn both_families(v4: Reply<IpAddr>, v6: Reply<IpAddr>) -> Reply<IpAddr> {
    match (v4, v6) {
        (Ok(mut v4), Ok(v6)) => {
            v4.ttl = v4.ttl.min(v6.ttl);
            v4.authenticated &= v6.authenticated;
            v4.value.extend(v6.value);
            Ok(v4)
        }
        (Ok(found), Err(other)) | (Err(other), Ok(found)) => Ok(Answer { partial: other.is_temporary(), ..found }),
        // Where one family is unknown, it can not be said that there is none.
        (Err(v4), Err(v6)) if v6.is_temporary() && !v4.is_temporary() => Err(v6),
        (Err(v4), Err(_)) => Err(v4),
    }
}

fn no_answer(error: &NetError) -> DnsError {
    let NetError::Dns(Semantic::NoRecordsFound(absence)) = error else {
        return DnsError::temporary(&error.to_string());
    };
    // RFC 2308 section 5: without an SOA the absence is not to be kept.
    let ttl = Duration::from_secs(absence.negative_ttl.unwrap_or(0).into());
    match absence.response_code {
        ResponseCode::NXDomain => DnsError::NoSuchDomain { ttl, proved: false },
        ResponseCode::NoError => DnsError::NoRecords { ttl, proved: false },
        code => DnsError::temporary(&code.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(ip: &str) -> Reply<IpAddr> {
        literal_answer(ip).ok_or(DnsError::Invalid)
    }

    #[test]
    fn one_family_is_enough() {
        let none = || Err(DnsError::NoRecords { ttl: Duration::ZERO, proved: false });
        let failed = || Err(DnsError::temporary("x"));
        let both = both_families(found("192.0.2.1"), found("2001:db8::1")).unwrap();
        assert_eq!(both.value.len(), 2);
        assert!(!both.partial && !both_families(none(), found("2001:db8::1")).unwrap().partial);
        assert!(both_families(found("192.0.2.1"), failed()).unwrap().partial);
        assert!(both_families(failed(), found("2001:db8::1")).unwrap().partial);
        assert!(both_families(none(), failed()).unwrap_err().is_temporary());
        assert!(both_families(failed(), none()).unwrap_err().is_temporary());
        assert!(!both_families(none(), none()).unwrap_err().is_temporary());
    }

    #[test]
    fn names_are_complete() {
        assert!(complete("example.com").unwrap().is_fqdn());
        assert!(complete("_dmarc.example.com.").is_ok());
        for bad in ["", ".", "a..b", &"a".repeat(64)] {
            assert_eq!(complete(bad), Err(DnsError::Invalid), "{bad}");
        }
    }

    #[test]
    fn hostile_names_are_escaped() {
        let name = Name::from_labels([&b"a\r\nb"[..], b"Example"]).unwrap();
        assert!(host_name(&name).bytes().all(|b| b.is_ascii_graphic()));
        assert_eq!(host_name(&Name::root()), "");
    }
}
