//! `postrider sts`.

use anyhow::Result;
use postrider_control::{Operation, Response, StsOperation};

use super::unexpected;
use crate::access::Access;
use crate::cli::StsCommand;
use crate::output::{Output, time};

pub(crate) async fn run(command: StsCommand, access: &mut Access, out: &mut Output) -> Result<()> {
    let StsCommand::Show { domain } = command;
    match access.ask(Operation::Sts(StsOperation::Show { domain })).await? {
        Response::Policy(policy) if out.json() => out.json_document(&policy),
        Response::Policy(policy) => {
            out.line(format_args!("mode     {}", policy.mode))?;
            out.line(format_args!("mx       {}", policy.mx.join(" ")))?;
            out.line(format_args!("id       {}", policy.id))?;
            out.line(format_args!("fetched  {}", time(policy.fetched)))?;
            out.line(format_args!("expires  {}", time(policy.expires)))
        }
        other => unexpected(&other),
    }
}
