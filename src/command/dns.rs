//! `postrider dns`: what to publish, and publishing it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use postrider_base::{Clock, Random, TcpDialer};
use postrider_control::{DnsPlanRequest, Operation, Response};
use postrider_dns::NameServer;
use postrider_mailauth::publish::{Outcome, Published, Publisher, Target, TsigKey};
use postrider_mailauth::records::{Format, Plan};

use super::unexpected;
use crate::access::Access;
use crate::cli::{DnsCommand, DnsPlanArgs};
use crate::output::Output;

const DNS_PORT: u16 = 53;

pub(crate) async fn run(command: DnsCommand, access: &mut Access, out: &mut Output) -> Result<()> {
    let DnsCommand::Plan(arguments) = command;
    let plan = plan(&arguments, access).await?;
    if arguments.publish {
        return publish(&arguments, &plan, out).await;
    }
    match out.json() {
        true => out.json_document(&plan),
        false => out.raw(Format::from(arguments.format).write(&plan).as_bytes()),
    }
}

async fn plan(arguments: &DnsPlanArgs, access: &mut Access) -> Result<Plan> {
    let request = DnsPlanRequest {
        account: access.account(arguments.account.account),
        domain: arguments.domain.clone(),
        check: arguments.check,
        dmarc_reports: arguments.dmarc_reports.clone(),
        tls_reports: arguments.tls_reports.clone(),
    };
    match access.ask(Operation::DnsPlan(request)).await? {
        Response::DnsPlan(plan) => Ok(*plan),
        other => unexpected(&other),
    }
}

/// From here and not from the daemon: the key is the caller's.
async fn publish(arguments: &DnsPlanArgs, plan: &Plan, out: &mut Output) -> Result<()> {
    let server = arguments.server.as_deref().context("--publish needs --server")?;
    let target = Target {
        server: address(server).await?,
        zone: arguments.zone.clone(),
        key: arguments.key.as_deref().map(TsigKey::load).transpose().map_err(|reason| anyhow!(reason))?,
    };
    let publisher = Publisher { dialer: Arc::new(TcpDialer), clock: Clock::system(), random: Random::system() };
    let published = publisher.publish(&target, &plan.records, arguments.dry_run).await?;
    match out.json() {
        true => out.json_document(&published),
        false => show(&published, out),
    }
}

/// `192.0.2.53`, `ns.example.com`, each with or without a port.
async fn address(server: &str) -> Result<SocketAddr> {
    if let Ok(NameServer(address)) = server.parse() {
        return Ok(address);
    }
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().with_context(|| format!("--server: {port:?} is no port"))?),
        None => (server, DNS_PORT),
    };
    let mut found =
        tokio::net::lookup_host((host, port)).await.with_context(|| format!("--server: cannot look up {host}"))?;
    match found.next() {
        Some(address) => Ok(address),
        None => bail!("--server: {host} has no address"),
    }
}

fn show(published: &[Published], out: &mut Output) -> Result<()> {
    let rows = published.iter().map(|record| {
        let (word, detail) = match &record.outcome {
            Outcome::Added => ("added", String::new()),
            Outcome::WouldAdd => ("would add", String::new()),
            Outcome::Replaced => ("replaced", String::new()),
            Outcome::WouldReplace => ("would replace", String::new()),
            Outcome::AlreadyRight => ("right already", String::new()),
            Outcome::Left { found, advice } => ("left as it is", format!("found {found}; {advice}")),
            Outcome::Outside => ("not in this zone", String::new()),
        };
        vec![record.name.clone(), record.kind.clone(), word.to_owned(), detail]
    });
    out.table(&["NAME", "TYPE", "WHAT", "DETAIL"], rows.collect(), "there is nothing to publish")
}
