//! `postrider queue why` and `postrider queue sites`: why mail has not left.

use anyhow::{Result, bail};
use postrider_control::{MessageWhy, Operation, QueueOperation, Response, SiteRow};
use postrider_mail::MessageId;

use super::unexpected;
use crate::access::Access;
use crate::output::{Output, or_dash, time};

/// Widest cell of the table of sites: it stays readable at 100 columns.
const SITE_WIDTH: usize = 30;
const SAID_WIDTH: usize = 28;

pub(crate) async fn why(id: MessageId, access: &mut Access, out: &mut Output) -> Result<()> {
    match access.ask(Operation::Queue(QueueOperation::Why { id })).await? {
        Response::Why(why) if out.json() => out.json_document(&why),
        Response::Why(why) => show_why(&why, out),
        other => unexpected(&other),
    }
}

fn show_why(why: &MessageWhy, out: &mut Output) -> Result<()> {
    if why.recovering {
        return out.line("old mail is being read after a start, and nothing leaves before that: ask again in a moment");
    }
    if why.ended {
        return out.line(format_args!("it has come to an end: `postrider message {}` says how", why.id));
    }
    for (index, recipient) in why.recipients.iter().enumerate() {
        if index > 0 {
            out.line("")?;
        }
        out.line(format_args!("{}: {}", recipient.address, recipient.reason))?;
        out.line(format_args!("  why:   {}", recipient.explanation))?;
        if let Some(since) = recipient.since {
            out.line(format_args!("  since: {}", time(since)))?;
        }
        if let Some(last) = recipient.last_reply.as_ref().filter(|_| recipient.reason != "not-due") {
            let remote = recipient.remote.as_deref().unwrap_or("the last attempt");
            out.line(format_args!("  last:  {remote}: {last} (attempt {})", recipient.attempts))?;
        }
        if let Some(advice) = &recipient.advice {
            out.line(format_args!("  do:    {advice}"))?;
        }
    }
    Ok(())
}

/// All lanes, or those of a site in detail.
pub(crate) async fn sites(site: Option<&str>, access: &mut Access, out: &mut Output) -> Result<()> {
    let Response::Sites(mut rows) = access.ask(Operation::Sites).await? else {
        bail!("the daemon gave an answer to another question: is it of another version?")
    };
    if let Some(name) = site {
        rows.retain(|row| is_called(&row.name, name));
    }
    if out.json() {
        return out.json_document(&rows);
    }
    match site {
        Some(name) if rows.is_empty() => {
            out.line(format_args!("no site in use is called {name}"))?;
            out.line(format_args!("(where the mail of a domain goes: `postrider shaping show {name}`)"))
        }
        Some(_) => rows.iter().try_for_each(|row| show_site(row, out)),
        None => show_sites(&rows, out),
    }
}

/// By its whole name or one of its hosts.
fn is_called(site: &str, name: &str) -> bool {
    let is_it = |place: &str| {
        let place = place.split_once("://").map_or(place, |(_, place)| place);
        place == name || host_of(place) == name
    };
    site == name || site.split([',', ' ']).any(is_it)
}

/// The host alone, where a port stands beside it.
fn host_of(place: &str) -> &str {
    let host = match place.rsplit_once(':') {
        // Not the end of an IPv6 address.
        Some((host, _)) if host.ends_with(']') || !host.contains(':') => host,
        _ => place,
    };
    host.trim_start_matches('[').trim_end_matches(']')
}

fn show_sites(rows: &[SiteRow], out: &mut Output) -> Result<()> {
    let rows = rows.iter().map(|row| {
        vec![
            shortened(&lane(row), SITE_WIDTH),
            format!("{}/{}", row.connections, row.limit),
            row.ready.to_string(),
            (row.parked + row.paused).to_string(),
            row.delivered.to_string(),
            state(row).to_owned(),
            shortened(&or_dash(row.last_refusal.as_ref()), SAID_WIDTH),
        ]
    });
    let header = ["SITE", "CONN", "READY", "PARKED", "SENT", "STATE", "LAST REFUSAL"];
    out.table(&header, rows.collect(), "no site is in use")
}

/// The site, where it leaves from, and what is asked of TLS where that is not the usual.
fn lane(row: &SiteRow) -> String {
    let source = row.source.as_ref().map_or_else(String::new, |source| format!("{source} > "));
    let tls = tls_word(row);
    let tls = if tls == "opportunistic" { String::new() } else { format!(" ({tls})") };
    format!("{source}{}{tls}", row.name)
}

fn tls_word(row: &SiteRow) -> String {
    serde_json::to_value(row.tls).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

fn state(row: &SiteRow) -> &'static str {
    if row.paused > 0 || row.paused_why.is_some() {
        "paused"
    } else if row.is_down {
        "down"
    } else if row.halved > 0 {
        "slowed"
    } else if row.parked > 0 {
        "full"
    } else {
        "ok"
    }
}

fn show_site(row: &SiteRow, out: &mut Output) -> Result<()> {
    out.line(&row.name)?;
    let rate = match (&row.rate, row.tokens) {
        (Some(rate), Some(tokens)) => format!("{rate}, {tokens} may go at once"),
        (Some(rate), None) => rate.clone(),
        (None, _) => "not limited".to_owned(),
    };
    let slowed = if row.halved > 0 { format!(", halved {} times", row.halved) } else { String::new() };
    let lines = [
        ("state", state(row).to_owned()),
        ("source", row.source.clone().unwrap_or_else(|| "chosen by the system".to_owned())),
        ("TLS", format!("{} at least", tls_word(row))),
        ("provider", or_dash(row.provider.as_ref())),
        ("rules", or_dash((!row.rules.is_empty()).then(|| row.rules.join(", ")))),
        ("waiting", format!("{} ready; queues: {} parked, {} paused", row.ready, row.parked, row.paused)),
        ("connections", format!("{} of {}, {} idle", row.connections, row.limit, row.idle)),
        ("rate", format!("{rate}{slowed}")),
        ("delivered", row.delivered.to_string()),
    ];
    for (name, value) in lines {
        out.line(format_args!("  {name:12} {value}"))?;
    }
    if let Some(why) = &row.paused_why {
        let until = row.paused_until.map_or_else(|| "it is lifted".to_owned(), time);
        out.line(format_args!("  {:12} until {until}: {why}", "paused"))?;
    }
    for refusal in row.refusals.iter().rev() {
        out.line(format_args!("  {:12} {} (x{}): {}", "refusal", time(refusal.at), refusal.count, refusal.text))?;
    }
    Ok(())
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most - 3).collect();
    format!("{}...", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_found_by_its_name_or_one_of_its_hosts() {
        for (site, names) in [
            ("mx1.example.com,mx2.example.com mx3.example.com (dnssec)", &["mx1.example.com", "mx3.example.com"][..]),
            ("smtp://127.0.0.1:4001", &["smtp://127.0.0.1:4001", "127.0.0.1:4001", "127.0.0.1"]),
            ("smtps://[2001:db8::1]:465", &["2001:db8::1"]),
            ("2001:db8::1", &["2001:db8::1"]),
            ("smarthost.isp relay.isp.example:587", &["relay.isp.example"]),
        ] {
            assert!(names.iter().all(|name| is_called(site, name)), "{site}");
            assert!(!is_called(site, "mx.other.example") && !is_called(site, ""), "{site}");
        }
    }

    #[test]
    fn long_cells_are_cut_at_characters() {
        assert_eq!(shortened("mx.example.com", 30), "mx.example.com");
        assert_eq!(shortened("äöüäöüäöü", 6), "äöü...");
        assert_eq!(shortened("one two three", 7), "one...");
    }
}
