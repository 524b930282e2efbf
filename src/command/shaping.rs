//! `postrider shaping`, `postrider pause`, `postrider resume`.

use anyhow::Result;
use postrider_control::{Operation, PauseRow, Response, ShapingOperation, ShapingRow, ShapingState};

use super::unexpected;
use crate::access::Access;
use crate::cli::{PauseArgs, ResumeArgs, ShapingCommand};
use crate::output::{Output, or_dash, time};

pub(crate) async fn run(command: ShapingCommand, access: &mut Access, out: &mut Output) -> Result<()> {
    let operation = match command {
        ShapingCommand::List => ShapingOperation::List,
        ShapingCommand::Show { name } => ShapingOperation::Show { name },
    };
    match access.ask(Operation::Shaping(operation)).await? {
        Response::Pauses(pauses) => list(&pauses, out),
        Response::Shaping(shaping) if out.json() => out.json_document(&shaping),
        Response::Shaping(shaping) => show(&shaping, out),
        other => unexpected(&other),
    }
}

pub(crate) async fn pause(arguments: PauseArgs, access: &mut Access, out: &mut Output) -> Result<()> {
    let PauseArgs { name, source, time, reason } = arguments;
    let operation = ShapingOperation::Pause { name, source, time, reason };
    match access.ask(Operation::Shaping(operation)).await? {
        Response::Pauses(pauses) => list(&pauses, out),
        other => unexpected(&other),
    }
}

pub(crate) async fn resume(arguments: ResumeArgs, access: &mut Access, out: &mut Output) -> Result<()> {
    let operation = ShapingOperation::Resume { name: arguments.name, source: arguments.source };
    match access.ask(Operation::Shaping(operation)).await? {
        Response::Changed { count } if out.json() => out.json_line(&serde_json::json!({ "lifted": count })),
        Response::Changed { count: 1 } => out.line("1 pause lifted"),
        Response::Changed { count } => out.line(format_args!("{count} pauses lifted")),
        other => unexpected(&other),
    }
}

fn list(pauses: &[PauseRow], out: &mut Output) -> Result<()> {
    if out.json() {
        return out.json_document(pauses);
    }
    let rows = pauses.iter().map(|pause| {
        let until = pause.until.map_or_else(|| "lifted".to_owned(), time);
        let what = match (&pause.source, &pause.signing_domain) {
            (Some(source), _) => format!("from {source}"),
            (None, Some(domain)) => format!("signed by {domain}"),
            (None, None) => "all".to_owned(),
        };
        vec![pause.name.clone(), what, pause.kind.clone(), time(pause.since), until, pause.why.clone()]
    });
    out.table(&["TO", "WHAT", "BY", "SINCE", "UNTIL", "WHY"], rows.collect(), "nothing pauses")
}

fn show(shaping: &ShapingRow, out: &mut Output) -> Result<()> {
    if let Some(provider) = &shaping.provider {
        out.line(format_args!("provider {} ({})", provider.name, provider.mx.join(" ")))?;
        state(&provider.state, out)?;
    }
    for site in &shaping.sites {
        out.line(format_args!("\nsite {}", site.name))?;
        match &site.state {
            Some(standing) => state(standing, out)?,
            None => out.line("  not in use")?,
        }
        let rows = site.rules.iter().map(|rule| vec![rule.key.clone(), rule.value.clone(), rule.from.clone()]);
        out.table(&["  RULE", "VALUE", "FROM"], indented(rows.collect()), "  no rules")?;
    }
    out.line("")?;
    let rows = shaping.feedback.iter().map(|rule| vec![rule.name.clone(), rule.action.clone(), rule.from.clone()]);
    out.table(&["FEEDBACK RULE", "ACTION", "FROM"], rows.collect(), "no feedback rules")
}

fn state(state: &ShapingState, out: &mut Output) -> Result<()> {
    let limit = state.limit.map_or_else(|| "any number".to_owned(), |limit| limit.to_string());
    let most = state.most.map_or_else(String::new, |most| format!(", at most {most}"));
    out.line(format_args!("  connections  {} of {limit}{most}, {} waiting", state.connections, state.waiting))?;
    out.line(format_args!("  rate         {}", or_dash(state.rate.as_ref())))?;
    if let Some(tokens) = state.tokens {
        out.line(format_args!("  at once      {tokens}"))?;
    }
    if state.halved > 0 {
        out.line(format_args!("  halved       {} times, because of what it said", state.halved))?;
    }
    out.line(format_args!("  messages     {}", state.messages))?;
    for pause in &state.pauses {
        let who = pause.source.as_ref().or(pause.signing_domain.as_ref());
        let until = pause.until.map_or_else(|| "it is lifted".to_owned(), time);
        out.line(format_args!("  paused       {} until {until}: {}", or_dash(who), pause.why))?;
    }
    for reply in &state.replies {
        let rule = reply.rule.as_ref().map_or_else(String::new, |rule| format!(" [{rule}]"));
        out.line(format_args!("  said         {} at {}: {}{rule}", time(reply.at), reply.stage, reply.text))?;
    }
    Ok(())
}

fn indented(rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    rows.into_iter()
        .map(|mut row| {
            if let Some(first) = row.first_mut() {
                first.insert_str(0, "  ");
            }
            row
        })
        .collect()
}
