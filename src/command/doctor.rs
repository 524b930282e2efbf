//! `postrider doctor` and `postrider explain`.

use std::fmt;

use anyhow::{Context as _, Result};
use postrider_control::{DoctorOperation, ExplainRequest, Operation, Response};
use postrider_mail::{Domain, MessageId};
use postrider_upkeep::doctor::{Finding, Verdict, worst};

use super::{message, unexpected};
use crate::access::Access;
use crate::cli::{DoctorArgs, ExplainArgs};
use crate::output::Output;

/// The doctor has said what is wrong: nothing is left to say but by the exit code.
#[derive(Debug)]
pub(crate) struct Unwell(Verdict);

impl Unwell {
    /// 1 where something should be done, 2 where mail suffers.
    pub(crate) fn exit_code(&self) -> u8 {
        if self.0 == Verdict::Fail { 2 } else { 1 }
    }
}

impl std::error::Error for Unwell {}

impl fmt::Display for Unwell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the worst finding is {}", self.0)
    }
}

/// Whether the queue and the journal are looked at.
pub(super) fn is_about_message(arguments: &DoctorArgs) -> bool {
    arguments.target.as_ref().is_some_and(|target| target.parse::<MessageId>().is_ok())
}

pub(crate) async fn run(arguments: DoctorArgs, access: &mut Access, out: &mut Output) -> Result<()> {
    let operation = match &arguments.target {
        None => DoctorOperation::Host { probe: arguments.probe },
        Some(target) => match target.parse::<MessageId>() {
            Ok(id) => DoctorOperation::Message { id },
            Err(_) => {
                let domain: Domain =
                    target.parse().with_context(|| format!("{target:?} is neither a domain nor a message id"))?;
                DoctorOperation::Domain { account: access.account(arguments.account.account), domain }
            }
        },
    };
    let Response::Examined(examination) = access.ask(Operation::Doctor(operation)).await? else {
        anyhow::bail!("the daemon gave an answer to another question: is it of another version?")
    };
    if out.json() {
        out.json_document(&examination)?;
    } else {
        if let Some(life) = &examination.message {
            message::show(life, out)?;
            out.line("")?;
        }
        show(&examination.findings, out)?;
    }
    out.flush()?;
    match worst(&examination.findings) {
        Verdict::Skip | Verdict::Pass => Ok(()),
        verdict => Err(Unwell(verdict).into()),
    }
}

fn show(findings: &[Finding], out: &mut Output) -> Result<()> {
    for finding in findings {
        let verdict = finding.verdict.as_str();
        let subject = match finding.subject.as_str() {
            "-" => String::new(),
            subject => format!("{subject}: "),
        };
        out.line(format_args!("{verdict:4}  {:15} {subject}{}", finding.check, finding.found))?;
        if let Some(advice) = &finding.advice {
            out.line(format_args!("      {:15} do: {advice}", ""))?;
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    out.line(format_args!(
        "{} pass, {} warn, {} fail, {} skipped",
        count(Verdict::Pass),
        count(Verdict::Warn),
        count(Verdict::Fail),
        count(Verdict::Skip),
    ))
}

pub(crate) async fn explain(arguments: ExplainArgs, access: &mut Access, out: &mut Output) -> Result<()> {
    let request = ExplainRequest {
        account: access.account(arguments.account.account),
        from: arguments.from,
        credential: arguments.credential,
        configuration_set: arguments.configuration_set,
        to: arguments.to,
    };
    match access.ask(Operation::Explain(request)).await? {
        Response::Explained(rows) if out.json() => out.json_document(&rows),
        Response::Explained(rows) => {
            let rows = rows.into_iter().map(|row| vec![row.what, row.value, row.why]);
            out.table(&["WHAT", "WOULD BE", "BECAUSE"], rows.collect(), "nothing")
        }
        other => unexpected(&other),
    }
}
