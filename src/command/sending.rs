//! `postrider configuration-sets`, `postrider pools`, `postrider sources`.

use anyhow::{Result, bail};
use postrider_account::Pool;
use postrider_base::Clock;
use postrider_control::{
    ConfigurationSetOperation, Operation, PoolOperation, Response, SourceOperation, SourceRow, WarmUpRow,
};

use super::{configuration_set, reputation, unexpected};
use crate::access::Access;
use crate::cli::{ConfigurationSetsCommand, PoolsCommand, SourcesCommand, WarmUpArgs};
use crate::output::{Output, or_dash, time};

/// Sites of the day that are shown; `--json` has more.
const SHOWN_SITES: usize = 10;

pub(crate) async fn configuration_sets(
    command: ConfigurationSetsCommand,
    access: &mut Access,
    out: &mut Output,
) -> Result<()> {
    type To = ConfigurationSetOperation;
    let (mut in_full, now) = (false, Clock::system().now());
    let operation = match command {
        ConfigurationSetsCommand::EventDestinations(command) => {
            return configuration_set::event_destinations(command, access, out).await;
        }
        ConfigurationSetsCommand::Create { name, options, account } => {
            To::Create { account: access.account(account.account), name, options: options.into_list(now)? }
        }
        ConfigurationSetsCommand::Set { name, options, account } => {
            let options = options.into_list(now)?;
            if options.is_empty() {
                bail!("nothing to change: name at least one rule, as --tls require");
            }
            To::Set { account: access.account(account.account), name, options }
        }
        ConfigurationSetsCommand::List { account } => To::List { account: access.account(account.account) },
        ConfigurationSetsCommand::Show { name, account } => {
            in_full = true;
            To::Show { account: access.account(account.account), name }
        }
        ConfigurationSetsCommand::Pause { name, pause, account } => {
            let account = access.account(account.account);
            return reputation::pause(account, Some(name), pause, access, out).await;
        }
        ConfigurationSetsCommand::Resume { name, account } => {
            let account = access.account(account.account);
            return reputation::resume(account, Some(name), access, out).await;
        }
        ConfigurationSetsCommand::Delete { name, account } => {
            To::Delete { account: access.account(account.account), name }
        }
    };
    match access.ask(Operation::ConfigurationSets(operation)).await? {
        Response::ConfigurationSets(sets) if in_full => match sets.first() {
            Some(set) => configuration_set::show(set, out),
            None => Ok(()),
        },
        Response::ConfigurationSets(sets) => configuration_set::list(&sets, out),
        other => changed(&other, out),
    }
}

pub(crate) async fn pools(command: PoolsCommand, access: &mut Access, out: &mut Output) -> Result<()> {
    type To = PoolOperation;
    let operation = match command {
        PoolsCommand::Create { name, account } => To::Create { account: access.account(account.account), name },
        PoolsCommand::List { account } => To::List { account: access.account(account.account) },
        PoolsCommand::Assign { name, source, weight, account } => {
            To::Assign { account: access.account(account.account), name, source, weight }
        }
        PoolsCommand::Remove { name, source, account } => {
            To::Remove { account: access.account(account.account), name, source }
        }
        PoolsCommand::Delete { name, account } => To::Delete { account: access.account(account.account), name },
    };
    match access.ask(Operation::Pools(operation)).await? {
        Response::Pools(pools) if out.json() => out.json_document(&pools),
        Response::Pools(pools) => show_pools(&pools, out),
        Response::Assigned { left } if out.json() => out.json_line(&serde_json::json!({ "changed": 1, "left": left })),
        Response::Assigned { left: Some(pool) } => out.line(format_args!("done; it has left pool {pool}")),
        Response::Assigned { left: None } => out.line("done"),
        other => changed(&other, out),
    }
}

fn show_pools(pools: &[Pool], out: &mut Output) -> Result<()> {
    let rows = pools.iter().map(|pool| {
        let members = pool.members.iter().map(|member| format!("{} ({})", member.source, member.weight));
        let members = members.collect::<Vec<_>>().join(", ");
        vec![pool.name.clone(), if members.is_empty() { "-".to_owned() } else { members }]
    });
    out.table(&["POOL", "SOURCES (WEIGHT)"], rows.collect(), "no pools: all sources are in the shared one")
}

pub(crate) async fn sources(command: SourcesCommand, access: &mut Access, out: &mut Output) -> Result<()> {
    let mut in_full = false;
    let operation = match command {
        SourcesCommand::List => SourceOperation::List,
        SourcesCommand::Show { name } => {
            in_full = true;
            SourceOperation::Show { name }
        }
        SourcesCommand::WarmUp { name, to } => SourceOperation::WarmUp { name, percent: to.percent() },
    };
    match access.ask(Operation::Sources(operation)).await? {
        Response::Sources(sources) if in_full => match sources.first() {
            Some(source) if out.json() => out.json_document(source),
            Some(source) => show_source(source, out),
            None => Ok(()),
        },
        Response::Sources(sources) if out.json() => out.json_document(&sources),
        Response::Sources(sources) => show_sources(&sources, out),
        other => changed(&other, out),
    }
}

impl WarmUpArgs {
    /// Where the warm-up begins.
    fn percent(&self) -> u8 {
        match self.percent {
            Some(percent) => percent,
            None if self.complete => 100,
            None => 0,
        }
    }
}

fn show_sources(sources: &[SourceRow], out: &mut Output) -> Result<()> {
    let rows = sources.iter().map(|source| {
        let sum = |count: fn(&postrider_control::SourceDay) -> u64| source.days.iter().map(count).sum::<u64>();
        vec![
            source.name.clone(),
            or_dash(source.ipv4.as_ref()),
            ipv6(source),
            source.pool.clone().unwrap_or_else(|| "(shared)".to_owned()),
            warm_up(&source.warm_up),
            if source.reverse_confirmed { "ok" } else { "not confirmed" }.to_owned(),
            sum(|day| day.counts.delivered).to_string(),
            sum(|day| day.counts.deferred).to_string(),
            sum(|day| day.counts.bounced).to_string(),
            sum(|day| day.counts.blocked).to_string(),
        ]
    });
    let header =
        ["SOURCE", "IPV4", "IPV6", "POOL", "WARM-UP", "REVERSE DNS", "DELIVERED", "DEFERRED", "BOUNCED", "BLOCKED"];
    out.table(&header, rows.collect(), "no sources in the configuration: the system chooses the address")
}

fn show_source(source: &SourceRow, out: &mut Output) -> Result<()> {
    out.line(format_args!("source:        {}", source.name))?;
    let line = |what: &str, address: &Option<String>, reverse: &Option<String>, out: &mut Output| match address {
        Some(address) => out.line(format_args!("{what}          {address}, {}", or_dash(reverse.as_ref()))),
        None => Ok(()),
    };
    line("IPv4:", &source.ipv4, &source.reverse_ipv4, out)?;
    line("IPv6:", &source.ipv6, &source.reverse_ipv6, out)?;
    if source.ipv6.is_some() && !source.ipv6_used {
        out.line("               no mail leaves over IPv6 until its reverse DNS is confirmed")?;
    }
    if let Some(name) = &source.ehlo_name {
        out.line(format_args!("EHLO name:     {name}"))?;
    }
    let account = source.account.as_ref().map(|account| format!(" of account {account}")).unwrap_or_default();
    out.line(format_args!("pool:          {}{account}", source.pool.as_deref().unwrap_or("(shared)")))?;
    out.line(format_args!("when blocked:  {}", source.on_block))?;
    out.line(format_args!("warm-up:       {}", warm_up(&source.warm_up)))?;
    if source.warm_up.status == "in progress" {
        out.line(format_args!("               from {} to {}", time(source.warm_up.since), time(source.warm_up.until)))?;
        if let Some(daily) = source.warm_up.daily {
            out.line(format_args!("               at most {daily} messages to a site today, so far:"))?;
        }
        for (site, count) in source.warm_up.today.iter().take(SHOWN_SITES) {
            out.line(format_args!("               {count:>7}  {site}"))?;
        }
    }
    out.line("")?;
    let rows = source.days.iter().map(|day| {
        let counts = &day.counts;
        let numbers = [counts.attempts, counts.delivered, counts.deferred, counts.bounced, counts.blocked];
        let date = day.day.rfc3339().chars().take(10).collect();
        std::iter::once(date).chain(numbers.map(|number| number.to_string())).collect()
    });
    let header = ["DAY", "ATTEMPTS", "DELIVERED", "DEFERRED", "BOUNCED", "BLOCKED"];
    out.table(&header, rows.collect(), "it has sent nothing yet")
}

fn ipv6(source: &SourceRow) -> String {
    match &source.ipv6 {
        Some(ip) if source.ipv6_used => ip.clone(),
        Some(ip) => format!("{ip} (not used)"),
        None => or_dash::<String>(None),
    }
}

fn warm_up(warm_up: &WarmUpRow) -> String {
    if warm_up.status == "in progress" { format!("{} %", warm_up.percent) } else { warm_up.status.clone() }
}

pub(super) fn changed(response: &Response, out: &mut Output) -> Result<()> {
    match response {
        Response::Changed { count } if out.json() => out.json_line(&serde_json::json!({ "changed": count })),
        Response::Changed { .. } => out.line("done"),
        other => unexpected(other),
    }
}
