//! `postrider status`, `reload` and `spool`.

use anyhow::Result;
use postrider_control::{Operation, Response, SpoolStat};

use super::unexpected;
use crate::access::Access;
use crate::output::{Output, bytes, or_dash, time_or_dash};

pub(crate) async fn status(access: &mut Access, out: &mut Output) -> Result<()> {
    let Response::Status(status) = access.ask(Operation::Status).await? else {
        return Err(anyhow::anyhow!("no status in the answer"));
    };
    if out.json() {
        return out.json_document(&status);
    }
    out.line(format_args!("postrider {} on {}", status.version, status.hostname))?;
    out.line(format_args!("node:      {} in region {}", status.node, status.region))?;
    out.line(format_args!("state:     {}", status.state_dir))?;
    match status.running_since {
        Some(_) => out.line(format_args!(
            "running:   since {}, process {}",
            time_or_dash(status.running_since),
            or_dash(status.pid)
        ))?,
        None => out.line("running:   no")?,
    }
    for listener in &status.listeners {
        out.line(format_args!("listening: {listener}"))?;
    }
    if let Some(dnssec) = &status.dnssec {
        out.line(format_args!("DNSSEC:    {dnssec}"))?;
    }
    for warning in &status.warnings {
        out.line(format_args!("warning:   {warning}"))?;
    }
    out.line("")?;
    show_spool(&status.spool, out)
}

pub(crate) async fn spool(access: &mut Access, out: &mut Output) -> Result<()> {
    match access.ask(Operation::SpoolStat).await? {
        Response::SpoolStat(stat) if out.json() => out.json_document(&stat),
        Response::SpoolStat(stat) => show_spool(&stat, out),
        other => unexpected(&other),
    }
}

pub(crate) async fn compact(access: &mut Access, out: &mut Output) -> Result<()> {
    match access.ask(Operation::SpoolCompact).await? {
        Response::Compacted { before, after } if out.json() => {
            out.json_document(&serde_json::json!({ "before": before, "after": after }))
        }
        Response::Compacted { before, after } => {
            out.line(format_args!("{} on disk before, {} now", bytes(before), bytes(after)))
        }
        other => unexpected(&other),
    }
}

/// What durability costs: bytes written for each byte of mail.
fn written(stat: &SpoolStat) -> String {
    let taken = stat.accepted_bytes.max(1);
    let (whole, tenths) = (stat.written_bytes / taken, stat.written_bytes * 10 / taken % 10);
    match stat.accepted_bytes {
        0 => format!("{} since the start", bytes(stat.written_bytes)),
        taken => format!(
            "{} for {} of mail taken since the start: {whole}.{tenths} times",
            bytes(stat.written_bytes),
            bytes(taken)
        ),
    }
}

fn show_spool(stat: &SpoolStat, out: &mut Output) -> Result<()> {
    let lines = [
        ("messages", format!("{} waiting, {}", stat.messages, bytes(stat.message_bytes))),
        ("in delivery", stat.in_delivery.to_string()),
        ("queues", stat.queues.to_string()),
        ("log", format!("{} on disk, {} segments in use", bytes(stat.disk_bytes), stat.segments)),
        ("long waiting", format!("{} of it", bytes(stat.cold_bytes))),
        ("written", written(stat)),
        ("bodies", format!("{} in memory", bytes(stat.body_memory))),
        ("index", format!("{}, {} changes behind", stat.index, stat.index_backlog)),
        ("quarantine", format!("{} damaged records since the start", stat.quarantined)),
    ];
    for (name, value) in lines {
        out.line(format_args!("{name:12} {value}"))?;
    }
    if stat.recovering {
        out.line("recovering   what waits is still being read; nothing is delivered before")?;
    }
    if stat.held {
        out.line("held         everything, until `postrider queue release --all`")?;
    }
    Ok(())
}

pub(crate) async fn reload(access: &mut Access, out: &mut Output) -> Result<()> {
    match access.ask(Operation::Reload).await? {
        Response::Reloaded(report) if out.json() => out.json_document(&report),
        Response::Reloaded(report) => {
            for applied in &report.applied {
                out.line(format_args!("in effect: {applied}"))?;
            }
            for key in &report.needs_restart {
                out.line(format_args!("needs a restart: {key}"))?;
            }
            if report.applied.is_empty() && report.needs_restart.is_empty() {
                out.line("nothing has changed")?;
            }
            Ok(())
        }
        other => unexpected(&other),
    }
}
