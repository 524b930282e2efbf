//! `postrider accounts`.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use postrider_account::{Limits, PausedBy, Tenant, TenantOption};
use postrider_control::{AccountOperation, Operation, Response};

use super::{reputation, unexpected};
use crate::access::Access;
use crate::cli::{AccountOptions, AccountsCommand, OnOff, SuppressionChoice};
use crate::output::{Output, or_dash, time};

pub(crate) async fn run(command: AccountsCommand, access: &mut Access, out: &mut Output) -> Result<()> {
    let operation = match command {
        AccountsCommand::Create { id, options } => AccountOperation::Create { id, options: options.changes()? },
        AccountsCommand::List => return list(access, out).await,
        AccountsCommand::Show { id } => AccountOperation::Show { id },
        AccountsCommand::Set { id, options } => AccountOperation::Set { id, options: options.changes()? },
        AccountsCommand::Delete { id } => AccountOperation::Delete { id },
        AccountsCommand::Pause { id, pause } => return reputation::pause(id, None, pause, access, out).await,
        AccountsCommand::Resume { id } => return reputation::resume(id, None, access, out).await,
    };
    match access.ask(Operation::Accounts(operation)).await? {
        Response::Accounts(tenants) if out.json() => out.json_document(&tenants.first()),
        Response::Accounts(tenants) => tenants.iter().try_for_each(|tenant| show(tenant, out)),
        Response::Changed { .. } if out.json() => out.json_line(&serde_json::json!({ "changed": 1 })),
        Response::Changed { .. } => out.line("done"),
        other => unexpected(&other),
    }
}

impl AccountOptions {
    fn changes(self) -> Result<Vec<TenantOption>> {
        let is_on = |switch: OnOff| switch == OnOff::On;
        let reasons: BTreeSet<_> = self.suppress.iter().filter_map(|choice| choice.reason()).collect();
        if self.suppress.contains(&SuppressionChoice::Inherit) {
            bail!("an account inherits from nobody: --suppress is bounce, complaint or none");
        }
        let all = [
            self.name.map(TenantOption::Name),
            self.contact.map(|contact| TenantOption::Contact(Some(contact))),
            self.no_contact.then_some(TenantOption::Contact(None)),
            self.sandbox.map(is_on).map(TenantOption::Sandbox),
            self.daily_quota.map(|quota| TenantOption::DailyQuota(Some(quota))),
            self.no_daily_quota.then_some(TenantOption::DailyQuota(None)),
            self.max_rate.map(|rate| TenantOption::MaxRate(Some(rate))),
            self.no_max_rate.then_some(TenantOption::MaxRate(None)),
            (!self.suppress.is_empty()).then_some(TenantOption::SuppressedReasons(reasons)),
            self.auto_pause.map(is_on).map(TenantOption::AutoPause),
        ];
        let tag = |tag: &String| {
            let (key, value) = tag.split_once('=').with_context(|| format!("{tag:?} is no tag: KEY=VALUE"))?;
            Ok(TenantOption::Tag(key.to_owned(), value.to_owned()))
        };
        let tags: Vec<_> = self.tags.iter().map(tag).collect::<Result<_>>()?;
        Ok(all.into_iter().flatten().chain(tags).chain(self.untags.into_iter().map(TenantOption::Untag)).collect())
    }
}

async fn list(access: &mut Access, out: &mut Output) -> Result<()> {
    let mut tenants = Vec::new();
    let mut take = |response| match response {
        Response::Accounts(page) => {
            tenants.extend(page);
            Ok(())
        }
        other => unexpected(&other),
    };
    access.each(Operation::Accounts(AccountOperation::List), &mut take).await?;
    if out.json() {
        return out.json_document(&tenants);
    }
    let rows = tenants.iter().map(|tenant| {
        let in_force = Limits::of(tenant);
        vec![
            tenant.id.to_string(),
            state(tenant),
            or_dash(in_force.per_day),
            or_dash(in_force.per_second),
            time(tenant.created_at),
            tenant.name.clone(),
        ]
    });
    let header = ["ACCOUNT", "SENDING", "A DAY", "A SECOND", "CREATED", "NAME"];
    out.table(&header, rows.collect(), "no account was made: there is the default one, without bounds")
}

fn state(tenant: &Tenant) -> String {
    let paused = match tenant.sending.pause().map(|pause| pause.by) {
        None => "enabled",
        Some(PausedBy::Operator) => "paused by hand",
        Some(PausedBy::Rule) => "paused by rule",
    };
    if tenant.sandbox { format!("{paused}, sandbox") } else { paused.to_owned() }
}

fn show(tenant: &Tenant, out: &mut Output) -> Result<()> {
    let reasons: Vec<_> = tenant.suppressed_reasons.iter().map(|reason| reason.as_str()).collect();
    let reasons = if reasons.is_empty() { "nothing".to_owned() } else { reasons.join(", ") };
    out.line(format_args!("account         {}", tenant.id))?;
    out.line(format_args!("name            {}", tenant.name))?;
    out.line(format_args!("contact         {}", or_dash(tenant.contact.as_ref())))?;
    out.line(format_args!("sending         {}", state(tenant)))?;
    if let Some(pause) = tenant.sending.pause() {
        let queue = if pause.hold { "the queue waits" } else { "the queue is still sent" };
        out.line(format_args!("                since {}, {queue}: {}", time(pause.at), pause.reason))?;
    }
    let in_force = Limits::of(tenant);
    out.line(format_args!("in 24 hours     {}", or_dash(in_force.per_day)))?;
    out.line(format_args!("a second        {}", or_dash(in_force.per_second)))?;
    out.line(format_args!("suppressed by   {reasons}"))?;
    out.line(format_args!("rules may pause {}", if tenant.auto_pause { "yes" } else { "no" }))?;
    tenant.tags.iter().try_for_each(|(key, value)| out.line(format_args!("tag             {key}={value}")))
}
