//! `postrider message`.

use anyhow::Result;
use postrider_control::{MessageLife, Operation, Response};
use postrider_mail::MessageId;

use super::{queue, unexpected};
use crate::access::Access;
use crate::output::{Output, or_dash, time};

pub(crate) async fn run(id: MessageId, access: &mut Access, out: &mut Output) -> Result<()> {
    match access.ask(Operation::Message { id }).await? {
        Response::Message(life) => show(&life, out),
        other => unexpected(&other),
    }
}

fn show(life: &MessageLife, out: &mut Output) -> Result<()> {
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
    if let Some(message) = &life.waiting {
        out.line("\nStill waiting:\n")?;
        queue::show_message(message, out)?;
    }
    Ok(())
}
