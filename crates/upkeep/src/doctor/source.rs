//! The addresses that mail leaves from, as others see them.

use std::net::{IpAddr, SocketAddr};

use postrider_dns::Resolver;
use postrider_mail::sanitize_text;
use postrider_mailauth::records::reverse_name;
use tokio::io::AsyncReadExt as _;

use super::address::is_private;
use super::settings::host_and_port;
use super::{Doctor, Finding, SourceFact};

/// Names of one address that are looked at.
const MOST_NAMES: usize = 8;
/// Longest beginning of a greeting that is shown.
const GREETING: usize = 120;

/// Whether the reverse DNS of an address leads to a name and back.
pub(super) async fn reverse(resolver: &dyn Resolver, source: &SourceFact) -> Finding {
    const CHECK: &str = "ptr";
    let SourceFact { address, host, .. } = source;
    let subject = format!("{address} ({})", source.name);
    if is_private(*address) {
        return Finding::skip(CHECK, subject, "the address is private: which one others see is not known here");
    }
    let wanted = source.ptr.as_deref().unwrap_or(host);
    let advice = format!("let whoever the address comes from publish {}. PTR {wanted}.", reverse_name(*address));
    let names = match resolver.ptr(*address).await {
        Ok(answer) => answer.value,
        Err(error) if error.is_absence() => return Finding::fail(CHECK, subject, "it has no PTR record", advice),
        Err(error) => return Finding::warn(CHECK, subject, format!("not known: {error}"), "ask again"),
    };
    let mut confirmed = Vec::new();
    for name in names.iter().take(MOST_NAMES) {
        match resolver.addresses(name).await {
            Ok(answer) if answer.value.contains(address) => confirmed.push(name.as_str()),
            Ok(answer) if answer.partial => {
                let words = format!("not known: not all addresses of {name} can be looked up");
                return Finding::warn(CHECK, subject, words, "ask again");
            }
            Err(error) if error.is_temporary() => {
                return Finding::warn(CHECK, subject, format!("not known: {name}: {error}"), "ask again");
            }
            _ => {}
        }
    }
    match (&confirmed[..], &source.ptr) {
        ([], _) => {
            let words = format!("its PTR record names {}, which does not have that address", names.join(", "));
            Finding::fail(CHECK, subject, words, format!("give that name the address, or {advice}"))
        }
        (confirmed, Some(ptr)) if !confirmed.iter().any(|name| name.eq_ignore_ascii_case(ptr)) => {
            let words = format!("its PTR record names {}, and the configuration wants {ptr}", confirmed.join(", "));
            Finding::fail(CHECK, subject, words, advice)
        }
        (confirmed, None) if !confirmed.iter().any(|name| name.eq_ignore_ascii_case(host)) => {
            let words = format!("it leads to {} and back; EHLO says {host}", confirmed.join(", "));
            Finding::warn(CHECK, subject, words, format!("let the two be the same: set ehlo_name, or {advice}"))
        }
        (confirmed, _) => Finding::pass(CHECK, subject, format!("it leads to {} and back", confirmed.join(", "))),
    }
}

/// Whether block lists have the address (RFC 5782).
pub(super) async fn listed(resolver: &dyn Resolver, lists: &[String], source: &SourceFact) -> Vec<Finding> {
    const CHECK: &str = "dnsbl";
    let mut findings = Vec::new();
    if is_private(source.address) {
        return findings;
    }
    for list in lists {
        let subject = format!("{} in {list}", source.address);
        // RFC 5782 section 5: every list has 127.0.0.2; one that does not has ended, or does not
        // answer us.
        let alive = match source.address {
            IpAddr::V4(_) => codes(resolver, &format!("2.0.0.127.{list}")).await,
            IpAddr::V6(_) => Ok(vec![]),
        };
        let asked = reverse_name(source.address);
        let asked = asked.trim_end_matches(".in-addr.arpa").trim_end_matches(".ip6.arpa");
        let name = format!("{asked}.{list}");
        let is_v4 = source.address.is_ipv4();
        findings.push(match (alive, codes(resolver, &name).await) {
            (Err(reason), _) | (_, Err(reason)) => Finding::warn(
                CHECK,
                subject,
                format!("not known: {reason}"),
                "ask again, or take the list out of doctor.dnsbl",
            ),
            (_, Ok(codes)) if codes.iter().any(|code| is_refusal(*code)) => {
                let words = "the list does not answer questions of our resolver";
                Finding::warn(CHECK, subject, words, "ask it through a resolver of your own, or by contract")
            }
            (Ok(alive), Ok(codes)) if codes.is_empty() && alive.is_empty() && is_v4 => {
                let words = "the list does not have the entry that every list has: it has ended, or does not answer us";
                Finding::warn(CHECK, subject, words, "take it out of doctor.dnsbl")
            }
            (_, Ok(codes)) if codes.is_empty() => Finding::pass(CHECK, subject, "not listed"),
            (_, Ok(codes)) => {
                let codes: Vec<String> = codes.iter().map(ToString::to_string).collect();
                let why = reason(resolver, &name).await;
                let words = format!("listed ({}){why}", codes.join(", "));
                Finding::fail(
                    CHECK,
                    subject,
                    words,
                    "find out what was sent, stop it, then ask the list to take it off",
                )
            }
        });
    }
    findings
}

/// The answers of a list, all in 127.0.0.0/8; anything else is not of a list.
async fn codes(resolver: &dyn Resolver, name: &str) -> Result<Vec<IpAddr>, String> {
    match resolver.addresses(name).await {
        Ok(answer) => Ok(answer.value.into_iter().filter(IpAddr::is_loopback).collect()),
        Err(error) if error.is_absence() => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    }
}

/// 127.255.255.0/24 says what is wrong with the question.
fn is_refusal(code: IpAddr) -> bool {
    matches!(code, IpAddr::V4(v4) if v4.octets()[..3] == [127, 255, 255])
}

/// What the list says about it, in a stranger's words.
async fn reason(resolver: &dyn Resolver, name: &str) -> String {
    let texts = resolver.txt(name).await.map(|answer| answer.value).unwrap_or_default();
    texts.first().map_or_else(String::new, |text| format!(": {}", sanitize_text(text, 200)))
}

/// Whether each address reaches a mail host: many networks close port 25.
pub(super) async fn outbound(doctor: &Doctor<'_>, sources: &[SourceFact]) -> Vec<Finding> {
    const CHECK: &str = "outbound";
    let Some(probe) = &doctor.settings.probe else {
        let words = "doctor.probe names no host to connect to, so whether port 25 is open outwards is not known";
        return vec![Finding::skip(CHECK, "port 25", words)];
    };
    let Some((host, port)) = host_and_port(probe, 25) else {
        return vec![Finding::fail(CHECK, probe, "doctor.probe is no host", "set it to a host that takes mail")];
    };
    let addresses = match doctor.resolver.addresses(&host).await {
        Ok(answer) => answer.value,
        Err(error) => {
            return vec![Finding::warn(CHECK, &host, format!("it cannot be looked up: {error}"), "name another host")];
        }
    };
    let from = match sources {
        [] => vec![None],
        sources => sources.iter().map(|source| Some(source.address)).collect(),
    };
    let mut findings = Vec::new();
    for from in from {
        let subject = match from {
            Some(from) => format!("{from} to {host}:{port}"),
            None => format!("{host}:{port}"),
        };
        let family = |ip: &&IpAddr| from.is_none_or(|from| from.is_ipv4() == ip.is_ipv4());
        let Some(to) = addresses.iter().find(family) else {
            findings.push(Finding::skip(CHECK, subject, "the host has no address of that kind"));
            continue;
        };
        findings.push(match greeting(doctor, SocketAddr::new(*to, port), from).await {
            Ok(greeting) if greeting.starts_with("220") => {
                Finding::pass(CHECK, subject, format!("it answers: {greeting}"))
            }
            Ok(greeting) => {
                let words = format!("something else answers: {greeting:?}");
                Finding::warn(CHECK, subject, words, "name a host that takes mail from anywhere in doctor.probe")
            }
            Err(error) => {
                let advice = "ask your network to open port 25 outwards, or give domains a route to a smarthost";
                Finding::fail(CHECK, subject, format!("no connection: {error}"), advice)
            }
        });
    }
    findings
}

/// The beginning of what a host says first.
async fn greeting(doctor: &Doctor<'_>, to: SocketAddr, from: Option<IpAddr>) -> std::io::Result<String> {
    let talk = async {
        let mut stream = doctor.dialer.dial(to, from).await?.stream;
        let mut said = [0; GREETING];
        let length = stream.read(&mut said).await?;
        let line = said[..length].split(|byte| *byte == b'\r' || *byte == b'\n').next().unwrap_or_default();
        Ok(sanitize_text(line, GREETING))
    };
    let limit = doctor.settings.timeout.as_duration();
    tokio::time::timeout(limit, talk).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}
