//! Where bounces come back to: whether the domain of return paths leads to the relay, and
//! whether the relay answers there.

use std::io;
use std::net::{IpAddr, SocketAddr};

use postrider_mail::{Domain, EmailAddress, sanitize_text};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use super::address::is_private;
use super::domain::exchanger;
use super::{Doctor, Finding};

/// Where other hosts bring mail (RFC 5321 section 4.5.4.2).
const PORT: u16 = 25;
/// Addresses of the host that are tried.
const MOST_ADDRESSES: usize = 4;
/// Longest reply that is read, in octets, and of which so much is shown.
const LONGEST_REPLY: u64 = 16 * 1024;
const SHOWN: usize = 120;

/// Where bounces come back to.
#[derive(Clone, Debug, PartialEq)]
pub struct BounceFacts {
    /// The domain of return paths.
    pub domain: Domain,
    /// The host that its MX record is to name.
    pub host: String,
    /// A return path in the domain that belongs to no message, and that the relay alone takes.
    pub probe: EmailAddress,
}

/// The MX record and what it leads to.
pub(super) async fn examine(doctor: &Doctor<'_>, facts: &BounceFacts) -> Vec<Finding> {
    let mx = doctor.resolver.mx(&facts.domain).await;
    let mut findings = vec![exchanger("return-path-mx", &facts.domain, mx, &facts.host)];
    findings.extend(answers(doctor, facts).await);
    findings
}

/// Whether the host takes bounces to the domain, at each of its addresses.
pub(super) async fn answers(doctor: &Doctor<'_>, facts: &BounceFacts) -> Vec<Finding> {
    const CHECK: &str = "feedback";
    let host = &facts.host;
    let addresses = match doctor.resolver.addresses(host).await {
        Ok(answer) => answer.value,
        Err(error) if error.is_absence() => {
            let advice = format!("publish an address for {host}, or set upkeep.bounce_host to a host that has one");
            return vec![Finding::fail(CHECK, host, "it has no address: bounces cannot come back", advice)];
        }
        Err(error) => return vec![Finding::warn(CHECK, host, format!("not known: {error}"), "ask again")],
    };
    let mut findings = Vec::new();
    for address in addresses.into_iter().take(MOST_ADDRESSES) {
        findings.push(judge(facts, address, talk(doctor, facts, address).await));
    }
    findings
}

fn judge(facts: &BounceFacts, address: IpAddr, said: io::Result<Said>) -> Finding {
    const CHECK: &str = "feedback";
    let BounceFacts { domain, host, .. } = facts;
    let subject = format!("{host} ({address})");
    match said {
        Err(error) => {
            let advice = "let a listener with role \"feedback\" answer at port 25 there, and let the world reach it; \
                          a network may turn away its own machines alone: try from outside";
            Finding::fail(CHECK, subject, format!("nobody answers, and bounces are lost: {error}"), advice)
        }
        Ok(Said { accepted: false, reply }) => {
            let advice = format!("let {host} lead to the feedback listener of this relay, and to no other mail server");
            Finding::fail(CHECK, subject, format!("it does not take our bounces to {domain}: {reply}"), advice)
        }
        Ok(_) if is_private(address) => {
            let words = format!("it takes our bounces to {domain}, but its address is private: others cannot reach it");
            Finding::warn(CHECK, subject, words, "publish the address that others see")
        }
        Ok(Said { reply, .. }) => Finding::pass(CHECK, subject, format!("it takes our bounces to {domain}: {reply}")),
    }
}

/// How a dialogue ended: at which reply, and whether all was well.
struct Said {
    accepted: bool,
    reply: String,
}

/// Asks as another host does, up to the recipient: nobody but the relay knows that address.
async fn talk(doctor: &Doctor<'_>, facts: &BounceFacts, address: IpAddr) -> io::Result<Said> {
    let BounceFacts { host, probe, .. } = facts;
    let dialogue = async {
        let mut stream = BufReader::new(doctor.dialer.dial(SocketAddr::new(address, PORT), None).await?.stream);
        let mut said = reply(&mut stream).await?;
        let commands = [format!("EHLO {host}"), "MAIL FROM:<>".to_owned(), format!("RCPT TO:<{probe}>")];
        for command in commands {
            if !said.accepted {
                return Ok(said);
            }
            stream.write_all(format!("{command}\r\n").as_bytes()).await?;
            said = reply(&mut stream).await?;
        }
        // Whether it hears this does not matter any more.
        let _ = stream.write_all(b"QUIT\r\n").await;
        Ok(said)
    };
    let limit = doctor.settings.timeout.as_duration();
    tokio::time::timeout(limit, dialogue).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A reply to its last line, which is the one that is shown.
async fn reply(stream: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> io::Result<Said> {
    let mut lines = stream.take(LONGEST_REPLY);
    loop {
        let mut line = Vec::new();
        if lines.read_until(b'\n', &mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // RFC 5321 section 4.2.1: a hyphen behind the code says that more lines follow.
        if line.get(3) != Some(&b'-') {
            let text = String::from_utf8_lossy(&line);
            return Ok(Said { accepted: line.starts_with(b"2"), reply: sanitize_text(text.trim_end(), SHOWN) });
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use postrider_base::{Clock, SimNet};
    use postrider_dns::Zones;
    use postrider_dns::zones::Failure;

    use super::*;
    use crate::doctor::{Settings, Verdict};

    pub(in crate::doctor) const HOST: &str = "mx.relay.example";
    pub(in crate::doctor) const ADDRESS: &str = "198.51.100.25";

    /// A host at this address that answers each command with the next of these.
    pub(in crate::doctor) fn host(net: &SimNet, address: &str, replies: &'static [&'static str]) {
        let mut listener = net.listen(SocketAddr::new(address.parse().unwrap(), PORT));
        tokio::spawn(async move {
            loop {
                let mut stream = BufReader::new(listener.accept().await.0);
                for reply in replies {
                    stream.write_all(format!("{reply}\r\n").as_bytes()).await.unwrap();
                    let mut command = String::new();
                    if stream.read_line(&mut command).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
            }
        });
    }

    /// One that takes the mail.
    pub(in crate::doctor) const GOOD: &[&str] =
        &["220 mx.relay.example ESMTP", "250-mx.relay.example\r\n250 SIZE", "250 Ok", "250 Ok"];

    async fn found(zones: &Zones, net: &SimNet) -> Vec<Finding> {
        let (clock, settings) = (Clock::simulated(Default::default()), Settings::default());
        let doctor = Doctor { resolver: zones, dialer: net, clock: &clock, settings: &settings };
        let probe = "aaaa@bounces.relay.example".parse().unwrap();
        let facts = BounceFacts { domain: "bounces.relay.example".parse().unwrap(), host: HOST.into(), probe };
        examine(&doctor, &facts).await
    }

    fn world() -> Zones {
        let zones = Zones::new();
        zones.add_mx("bounces.relay.example", 10, HOST).add_address(HOST, ADDRESS);
        zones
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_takes_the_mail_is_good() {
        let net = SimNet::new();
        host(&net, ADDRESS, GOOD);
        let findings = found(&world(), &net).await;
        assert!(findings.iter().all(|finding| finding.verdict == Verdict::Pass), "{findings:?}");
        assert_eq!(findings.len(), 2);
        assert!(findings[1].found.ends_with("bounces.relay.example: 250 Ok"), "{findings:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn others_who_answer_are_told_from_the_relay() {
        for (replies, words) in [
            (&["554 no service"][..], "554 no service"),
            (&["220 x", "250 x", "250 Ok", "554 5.7.1 Relay access denied"], "554 5.7.1 Relay access denied"),
            (&["220 x", "250 x", "250 Ok", "451 4.7.1 later\u{1b}[31m"], "451 4.7.1 later"),
            (&["220 x", "250 x"], "nobody answers, and bounces are lost"),
            (&["220-x"], "nobody answers, and bounces are lost"),
        ] {
            let net = SimNet::new();
            host(&net, ADDRESS, replies);
            let finding = found(&world(), &net).await.remove(1);
            assert!(finding.verdict == Verdict::Fail && finding.found.contains(words), "{finding:?}");
            assert!(!finding.found.contains(char::is_control) && finding.advice.is_some(), "{finding:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_address_is_tried() {
        let (net, zones) = (SimNet::new(), world());
        zones.add_address(HOST, "10.0.0.25").add_address(HOST, "2001:db8::25");
        host(&net, ADDRESS, GOOD);
        host(&net, "10.0.0.25", GOOD);
        net.silence("[2001:db8::25]:25".parse().unwrap());
        let findings = found(&zones, &net).await;
        let verdict = |address: &str| {
            let subject = format!("{HOST} ({address})");
            findings.iter().find(|finding| finding.subject == subject).unwrap().verdict
        };
        assert_eq!(verdict(ADDRESS), Verdict::Pass);
        assert_eq!(verdict("10.0.0.25"), Verdict::Warn, "others do not see it");
        assert_eq!(verdict("2001:db8::25"), Verdict::Fail, "time out");
    }

    #[tokio::test(start_paused = true)]
    async fn names_that_lead_nowhere_are_found() {
        let net = SimNet::new();
        let zones = Zones::new();
        let findings = found(&zones, &net).await;
        assert!(findings[0].verdict == Verdict::Fail && findings[0].found.contains("no MX record"), "{findings:?}");
        assert!(findings[1].verdict == Verdict::Fail && findings[1].found.contains("no address"), "{findings:?}");
        assert!(findings[0].advice.as_ref().unwrap().contains("MX 10 mx.relay.example."), "{findings:?}");
        zones.fail("bounces.relay.example", Failure::ServFail).fail(HOST, Failure::ServFail);
        let findings = found(&zones, &net).await;
        assert!(findings.iter().all(|finding| finding.verdict == Verdict::Warn), "{findings:?}");
    }
}
