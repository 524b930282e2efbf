//! `postrider trace`.

use anyhow::Result;
use postrider_control::{Operation, Response, TracedLine};

use super::unexpected;
use crate::access::Access;
use crate::cli::TraceArgs;
use crate::output::{Output, time};

pub(crate) async fn run(arguments: TraceArgs, access: &mut Access, out: &mut Output) -> Result<()> {
    let TraceArgs { peer, user, time: limit } = arguments;
    let mut show = |response| match response {
        Response::Traced(line) => {
            if out.json() { out.json_line(&line) } else { print(&line, out) }?;
            // Each line when it is said.
            out.flush()
        }
        other => unexpected(&other),
    };
    let following = access.each(Operation::Trace { peer, user }, &mut show);
    match limit {
        // The end of the time is the end that was asked for.
        Some(limit) => tokio::time::timeout(limit.as_duration(), following).await.unwrap_or(Ok(())),
        None => following.await,
    }
}

fn print(line: &TracedLine, out: &mut Output) -> Result<()> {
    if line.lost > 0 {
        out.line(format_args!("({} lines lost: they came faster than they were read)", line.lost))?;
    }
    let mark = match line.speaker.as_str() {
        "client" => "<",
        "server" => ">",
        _ => "*",
    };
    out.line(format_args!("{} {} {} {mark} {}", time(line.at), line.peer, line.session, line.text))
}
