//! `postrider message`.

use anyhow::Result;
use postrider_control::{AttemptView, LifeStep, MessageLife, Operation, Response};
use postrider_mail::{Exchange, HostRecord, MessageId};

use super::{queue, unexpected};
use crate::access::Access;
use crate::output::{Output, or_dash, time};

pub(crate) async fn run(id: MessageId, access: &mut Access, out: &mut Output) -> Result<()> {
    match access.ask(Operation::Message { id }).await? {
        Response::Message(life) => show(&life, out),
        other => unexpected(&other),
    }
}

pub(super) fn show(life: &MessageLife, out: &mut Output) -> Result<()> {
    if out.json() {
        return out.json_document(life);
    }
    let rows = life.steps.iter().map(|step| {
        let mut detail = step.detail.clone();
        if let Some(delays) = &step.delays {
            detail = format!("{detail} (delays {delays})");
        }
        if let Some(next) = step.next_attempt {
            detail = format!("{detail} (next attempt {})", time(next));
        }
        vec![
            step.at.rfc3339(),
            step.what.clone(),
            or_dash(step.recipient.as_ref()),
            or_dash(step.remote.as_ref()),
            or_dash(step.status.as_ref()),
            detail,
        ]
    });
    let header = ["TIME", "WHAT", "TO", "REMOTE", "STATUS", "REPLY"];
    out.table(&header, rows.collect(), "the journal has nothing on this message")?;
    show_attempts(&life.steps, out)?;
    if let Some(message) = &life.waiting {
        out.line("\nStill waiting:\n")?;
        queue::show_message(message, out)?;
    }
    Ok(())
}

/// What was said in the attempts, each once for all its recipients.
fn show_attempts(steps: &[LifeStep], out: &mut Output) -> Result<()> {
    let attempts = steps.iter().filter_map(|step| Some((step, step.attempt.as_ref()?)));
    let mut last: Option<&AttemptView> = None;
    for (step, attempt) in attempts {
        if last.replace(attempt) == Some(attempt) {
            continue;
        }
        let alike = |other: &&LifeStep| other.attempt.as_ref() == Some(attempt);
        let recipients: Vec<_> = steps.iter().filter(alike).filter_map(|step| step.recipient.as_deref()).collect();
        let took = seconds(u32::try_from(step.at.saturating_since(attempt.began).as_millis()).unwrap_or(u32::MAX));
        out.line(format_args!("\nAttempt {} for {}", attempt.number, listed(&recipients)))?;
        out.line(format_args!("  {} took {took}, site {}, as {}", time(attempt.began), attempt.site, attempt.ehlo))?;
        if attempt.omitted > 0 {
            out.line(format_args!("  ({} hosts before these)", attempt.omitted))?;
        }
        attempt.hosts.iter().try_for_each(|host| show_host(host, out))?;
    }
    Ok(())
}

fn show_host(host: &HostRecord, out: &mut Output) -> Result<()> {
    let ip = host.ip.map_or_else(String::new, |ip| format!("[{ip}]"));
    let port = if host.port == 0 { String::new() } else { format!(":{}", host.port) };
    let source = host.source.map_or_else(String::new, |source| format!(" from {source}"));
    let tls = match &host.tls {
        Some(tls) => format!(", {} {}, {}", tls.version, tls.cipher, host.level),
        // Nothing was dialled: the DNS, say.
        None if host.exchanges.is_empty() || host.ip.is_none() => String::new(),
        None => format!(", in clear, {}", host.level),
    };
    let reused = match host.reused {
        0 => String::new(),
        count => format!(", connection used for {count} before"),
    };
    out.line(format_args!("  {}{ip}{port}{source}{tls}{reused}", host.host))?;
    if host.omitted > 0 {
        out.line(format_args!("    ({} exchanges are not listed)", host.omitted))?;
    }
    host.exchanges.iter().try_for_each(|exchange| show_exchange(exchange, out))?;
    host.failure.iter().try_for_each(|failure| out.line(format_args!("    failed: {failure}")))
}

fn show_exchange(exchange: &Exchange, out: &mut Output) -> Result<()> {
    if !exchange.command.is_empty() {
        out.line(format_args!("    > {}", exchange.command))?;
    }
    let took = seconds(exchange.ms);
    match exchange.reply.as_str() {
        "" => out.line(format_args!("    no reply that counts in {took}")),
        reply => out.line(format_args!("    < {reply} ({took})")),
    }
}

fn seconds(ms: u32) -> String {
    format!("{} s", f64::from(ms) / 1000.0)
}

/// Some of many.
fn listed(recipients: &[&str]) -> String {
    const MOST: usize = 5;
    match recipients.len() {
        0 => "an unknown recipient".to_owned(),
        count if count > MOST => format!("{} and {} more", recipients[..MOST].join(", "), count - MOST),
        _ => recipients.join(", "),
    }
}
