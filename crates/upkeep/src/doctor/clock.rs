//! Whether our clock is right: signatures, certificates and retries hang on it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use postrider_base::Timestamp;
use postrider_dns::Validation;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::settings::host_and_port;
use super::{Doctor, Finding};

const CHECK: &str = "clock";
/// Where it is compared: `Date` has whole seconds, and the answer takes its time.
const GOOD: Duration = Duration::from_secs(5);
/// TSIG, and many who look at DKIM's times, bear five minutes.
const BEARABLE: Duration = Duration::from_secs(60);
/// Where an answer's header must have ended.
const LONGEST_HEADER: u64 = 16 * 1024;

/// By the `Date` of a web server where one is named, else by what DNSSEC implies: signatures of
/// the root are valid for days.
pub(super) async fn examine(doctor: &Doctor<'_>) -> Finding {
    let Some(server) = &doctor.settings.time else {
        return match doctor.resolver.validation() {
            Validation::Works => {
                let words =
                    "right to the day, as signatures in the DNS are valid by it; doctor.time compares it better";
                Finding::pass(CHECK, "-", words)
            }
            _ => Finding::skip(CHECK, "-", "doctor.time names no web server to compare it with"),
        };
    };
    match ask(doctor, server).await {
        Ok(theirs) => compare(server, theirs, doctor.clock.now()),
        Err(error) => {
            let words = format!("not known: {error}");
            Finding::warn(CHECK, server, words, "name another web server in doctor.time")
        }
    }
}

fn compare(server: &str, theirs: Timestamp, ours: Timestamp) -> Finding {
    let ahead = ours.saturating_since(theirs);
    let behind = theirs.saturating_since(ours);
    let (by, word) = if behind > ahead { (behind, "behind") } else { (ahead, "ahead") };
    let words = format!("{} s {word} of {server}", by.as_secs());
    let advice = "let a time service set the clock, such as chrony or systemd-timesyncd";
    match by {
        by if by <= GOOD => Finding::pass(CHECK, "-", words),
        by if by <= BEARABLE => Finding::warn(CHECK, "-", words, advice),
        _ => Finding::fail(CHECK, "-", format!("{words}: signatures and certificates are judged wrongly"), advice),
    }
}

async fn ask(doctor: &Doctor<'_>, server: &str) -> io::Result<Timestamp> {
    let (host, port) = host_and_port(server, 80).ok_or_else(|| io::Error::other("doctor.time is no host"))?;
    let talk = async {
        let found = doctor.resolver.addresses(&host).await.map_err(io::Error::other)?;
        let address = found.value.first().ok_or(io::ErrorKind::NotFound)?;
        let mut stream = doctor.dialer.dial(SocketAddr::new(*address, port), None).await?.stream;
        let request = format!("HEAD / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(LONGEST_HEADER).read_to_end(&mut answer).await?;
        date(&answer).ok_or_else(|| io::Error::other("its answer has no Date"))
    };
    let limit = doctor.settings.timeout.as_duration();
    tokio::time::timeout(limit, talk).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// RFC 9110 section 5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn date(answer: &[u8]) -> Option<Timestamp> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = String::from_utf8_lossy(answer);
    let value = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("date").then(|| value.trim())
    })?;
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = words[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    Timestamp::parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn dates_are_read() {
        let answer = b"HTTP/1.1 200 OK\r\nServer: x\r\nDATE: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";
        assert_eq!(date(answer).unwrap().rfc3339(), "1994-11-06T08:49:37.000Z");
        for bad in ["", "Date: \r\n", "Date: Sun, 06 Nox 1994 08:49:37 GMT", "Date: Sunday, 06-Nov-94 08:49:37 GMT"] {
            assert_eq!(date(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn differences_have_their_verdicts() {
        let at = Timestamp::from_millis(1_000_000);
        for (ours, verdict) in [
            (1_000_000, Verdict::Pass),
            (1_005_000, Verdict::Pass),
            (990_000, Verdict::Warn),
            (1_060_000, Verdict::Warn),
            (1_061_001, Verdict::Fail),
            (0, Verdict::Fail),
        ] {
            assert_eq!(compare("x", at, Timestamp::from_millis(ours)).verdict, verdict, "{ours}");
        }
        assert!(compare("x", at, Timestamp::from_millis(0)).found.contains("behind"));
    }
}
