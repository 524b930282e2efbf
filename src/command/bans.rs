//! `postrider bans`.

use anyhow::Result;
use postrider_control::{BanOperation, Operation, Response};

use super::unexpected;
use crate::access::Access;
use crate::cli::BansCommand;
use crate::output::{Output, time};

pub(crate) async fn run(command: BansCommand, access: &mut Access, out: &mut Output) -> Result<()> {
    let operation = match command {
        BansCommand::List => BanOperation::List,
        BansCommand::Clear(arguments) => BanOperation::Clear { network: arguments.network },
    };
    match access.ask(Operation::Bans(operation)).await? {
        Response::Changed { count } if out.json() => out.json_line(&serde_json::json!({ "lifted": count })),
        Response::Changed { count: 1 } => out.line("1 ban lifted"),
        Response::Changed { count } => out.line(format_args!("{count} bans lifted")),
        Response::Bans(bans) if out.json() => out.json_document(&bans),
        Response::Bans(bans) => {
            let rows = bans.into_iter().map(|ban| {
                let users = ban.users.join(" ");
                vec![ban.network.to_string(), time(ban.since), time(ban.until), ban.times.to_string(), users]
            });
            out.table(&["ADDRESS", "SINCE", "UNTIL", "TIMES", "LAST USERS"], rows.collect(), "no address is banned")
        }
        other => unexpected(&other),
    }
}
