//! What would be used for mail of a sender, and why.

use postrider_account::{ConfigurationSet, MailFrom, MailFromFailure, Resolved, TlsPolicy};
use postrider_delivery::settings::SourceSettings;
use postrider_mail::{AccountId, EmailAddress, Envelope, Recipient};
use postrider_submission::{Answer, Question, Refusal, ReturnPath, Rules};
use serde::{Deserialize, Serialize};

use crate::control::Deps;
use crate::doctor::identity_words;
use crate::{Error, Response};

/// Whose mail is to be explained.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ExplainRequest {
    /// The account, unless a credential says it.
    pub account: AccountId,
    /// The address in From.
    pub from: EmailAddress,
    /// The user name of the credential that submits.
    pub credential: Option<String>,
    /// What the message names in X-SES-CONFIGURATION-SET.
    pub configuration_set: Option<String>,
    /// Its recipient; without one nothing is asked about recipients.
    #[serde(default)]
    pub to: Option<EmailAddress>,
}

/// One thing that would be used.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ExplainedRow {
    /// A word of a closed set: `account`, `identity`, `dkim`, `configuration-set`, `pool`,
    /// `source`, `tls`, `return-path`, `check`, `decision`.
    pub what: String,
    /// What it would be.
    pub value: String,
    /// Why that, in one line.
    pub why: String,
}

fn row(what: &str, value: impl Into<String>, why: impl Into<String>) -> ExplainedRow {
    ExplainedRow { what: what.to_owned(), value: value.into(), why: why.into() }
}

pub(crate) fn execute(deps: &Deps, request: &ExplainRequest) -> Result<Response, Error> {
    let ExplainRequest { from, configuration_set, .. } = request;
    let (account, first) = account(deps, request)?;
    let resolved = deps.accounts.identities().resolve(account, from);
    let mut rows = vec![first, identity(resolved.as_ref(), from)];
    rows.extend(signatures(deps, account, resolved.as_ref(), from));
    let (set, set_row) = set(deps, account, resolved.as_ref(), configuration_set.as_deref());
    rows.push(set_row);
    rows.extend(sources(deps, account, set.as_deref()));
    rows.push(tls(deps, set.as_deref()));
    rows.push(return_path(deps, resolved.as_ref())?);
    rows.extend(decision(deps, account, resolved.as_ref(), request));
    Ok(Response::Explained(rows))
}

/// What each check says of such a message, and what comes of it.
fn decision(
    deps: &Deps,
    account: AccountId,
    resolved: Option<&Resolved>,
    request: &ExplainRequest,
) -> Vec<ExplainedRow> {
    let ExplainRequest { from, credential, configuration_set, to, .. } = request;
    let envelope = Envelope {
        sender: Some(from.clone()),
        recipients: to.iter().cloned().map(Recipient::new).collect(),
        ..Envelope::default()
    };
    let rules = Rules::new(deps.accounts.clone(), &deps.world.submission);
    let answers = rules.explain(&Question {
        account,
        credential: credential.as_deref().unwrap_or_default(),
        envelope: &envelope,
        from,
        set: configuration_set.as_deref(),
        client_ip: None,
        now: deps.world.clock.now(),
    });
    // Without a credential there is nobody whose policies could be asked.
    let answers = answers.into_iter().map(|Answer { check, refusal }| (check, refusal));
    let asked = answers.filter(|(check, _)| credential.is_some() || *check != "policies");
    let asked = authenticates(deps, request).into_iter().chain(asked).chain(mail_from(deps, resolved));
    let (mut rows, mut first) = (Vec::new(), None);
    for (check, refusal) in asked {
        let (says, why) = match &refusal {
            None => ("passed", passed(check)),
            Some(refusal) => ("refused", refusal.reply().to_string()),
        };
        rows.push(row("check", format!("{check}: {says}"), why));
        first = first.or(refusal);
    }
    rows.push(match first {
        None => row("decision", "accepted", "all checks are passed; content, filters and quotas are not asked here"),
        Some(refusal) => row("decision", "refused", refusal.to_string()),
    });
    rows
}

/// Whether the credential can be used at all, where one is named.
fn authenticates(deps: &Deps, request: &ExplainRequest) -> Option<(&'static str, Option<Refusal>)> {
    let found = deps.accounts.credentials().get(request.credential.as_ref()?)?;
    Some(("credential", found.disabled.then_some(Refusal::Disabled)))
}

/// Whether the identity lets its mail be sent with the return path that it would have, where
/// the relay chooses that.
fn mail_from(deps: &Deps, resolved: Option<&Resolved>) -> Option<(&'static str, Option<Refusal>)> {
    let own = resolved.and_then(Resolved::mail_from);
    let own = own.filter(|_| deps.world.submission.return_path == ReturnPath::Verp)?;
    Some(("mail-from", is_refused(own).then_some(Refusal::MailFromDomainNotVerified)))
}

fn is_refused(own: &MailFrom) -> bool {
    !own.is_usable() && own.on_failure == MailFromFailure::Reject
}

fn passed(check: &str) -> String {
    match check {
        "credential" => "it is not disabled",
        "mail-from" => "its MAIL FROM domain is as it should be, or another return path may be used",
        "account" => "it is not paused",
        "senders" => "envelope sender and author may be used",
        "policies" => "those of the credential and of the identity let it",
        "configuration-set" => "there is none, or it is there and not paused",
        _ => "not in the sandbox, or a verified identity or the simulator",
    }
    .to_owned()
}

fn account(deps: &Deps, request: &ExplainRequest) -> Result<(AccountId, ExplainedRow), Error> {
    let Some(user) = &request.credential else {
        let row = row("account", request.account.to_string(), "no credential was named");
        return Ok((request.account, row));
    };
    let credential = deps.accounts.credentials().get(user);
    let credential = credential.ok_or_else(|| Error::NotFound(format!("there is no credential {user:?}")))?;
    let why = match credential.disabled {
        true => format!("it is that of credential {user}, which is disabled: its mail is refused"),
        false => format!("it is that of credential {user}"),
    };
    Ok((credential.account, row("account", credential.account.to_string(), why)))
}

fn identity(resolved: Option<&Resolved>, from: &EmailAddress) -> ExplainedRow {
    let Some(resolved) = resolved else {
        return row(
            "identity",
            "-",
            format!("neither {from} nor a domain that it is in is an identity of the account"),
        );
    };
    let identity = &resolved.identity;
    let state = match (identity.trusted, resolved.is_verified()) {
        (true, _) => "trusted by configuration",
        (false, true) => "verified",
        (false, false) => "not verified",
    };
    row("identity", format!("{} ({state})", identity.name), identity_words(resolved, from))
}

fn signatures(deps: &Deps, account: AccountId, resolved: Option<&Resolved>, from: &EmailAddress) -> Vec<ExplainedRow> {
    let mut rows: Vec<ExplainedRow> = Vec::new();
    for key in deps.ring.keys_of(account, from) {
        let value = format!("d={} s={} ({})", key.domain, key.selector, key.algorithm);
        let why = match key.domain == *from.domain() {
            true => format!("the current {} key of the domain", key.origin.as_str()),
            false => format!("the current {} key of the nearest domain above that has one", key.origin.as_str()),
        };
        rows.push(row("dkim", value, why));
    }
    if rows.is_empty() {
        let why = match resolved {
            None => "it belongs to no identity".to_owned(),
            Some(resolved) if !resolved.identity.dkim.enabled => {
                format!("signing is switched off for {}", resolved.identity.name)
            }
            Some(_) => format!("no domain of the account has a key for it: `postrider dkim create {}`", from.domain()),
        };
        rows.push(row("dkim", "not signed", why));
    }
    rows.extend(operator_signatures(deps, &rows));
    rows
}

/// What the operator's domain adds to all mail but its own.
fn operator_signatures(deps: &Deps, rows: &[ExplainedRow]) -> Vec<ExplainedRow> {
    let Some(operator) = deps.world.operator_domain.as_ref().filter(|_| deps.world.operator_signature) else {
        return Vec::new();
    };
    let own = format!("d={operator} ");
    if rows.iter().any(|row| row.value.starts_with(&own)) {
        return Vec::new();
    }
    let keys = deps.ring.keys_of_domain(AccountId::default(), operator);
    let signed = |key: &std::sync::Arc<postrider_account::DkimKey>| {
        let value = format!("d={} s={} ({})", key.domain, key.selector, key.algorithm);
        row("dkim", value, "dkim.operator_signature adds it to all mail")
    };
    keys.iter().map(signed).collect()
}

fn set(
    deps: &Deps,
    account: AccountId,
    resolved: Option<&Resolved>,
    named: Option<&str>,
) -> (Option<std::sync::Arc<ConfigurationSet>>, ExplainedRow) {
    const WHAT: &str = "configuration-set";
    let default = resolved.and_then(Resolved::default_configuration_set);
    let (name, why) = match (named, default) {
        (Some(name), _) => (name, "the message names it"),
        (None, Some(name)) => (name, "the default of the identity: the message names none"),
        (None, None) => {
            let why = "no X-SES-CONFIGURATION-SET was named (--configuration-set), and the identity has no default";
            return (None, row(WHAT, "-", why));
        }
    };
    match deps.accounts.configuration_sets().find(account, name) {
        Some(set) => {
            let row = row(WHAT, &set.name, why);
            (Some(set), row)
        }
        None => (None, row(WHAT, "-", format!("the account has no set {name:?}"))),
    }
}

fn sources(deps: &Deps, account: AccountId, set: Option<&ConfigurationSet>) -> Vec<ExplainedRow> {
    let pools = deps.accounts.pools();
    let wanted = set.and_then(|set| Some((set, set.pool.as_deref()?)));
    let pool = wanted.and_then(|(_, name)| pools.find(account, name));
    let mut rows = Vec::new();
    rows.push(match (&pool, wanted) {
        (Some(pool), Some((set, _))) => row("pool", &pool.name, format!("configuration set {} names it", set.name)),
        (_, Some((set, name))) => {
            row("pool", "shared", format!("{} names {name}, which the account does not have", set.name))
        }
        _ => row("pool", "shared", "no configuration set names a pool"),
    });
    let taken: Vec<String> =
        pools.all().iter().flat_map(|pool| pool.members.iter().map(|member| member.source.clone())).collect();
    let facts = deps.source_facts();
    let in_pool = |name: &str| match &pool {
        Some(pool) => pool.members.iter().any(|member| member.source == name),
        None => !taken.iter().any(|other| other == name),
    };
    let weight = |name: &str| match &pool {
        Some(pool) => pool.members.iter().find(|member| member.source == name).map_or(1, |member| member.weight),
        None => deps.world.delivery.sources.get(name).map_or(1, |source: &SourceSettings| source.weight),
    };
    for fact in facts.iter().filter(|fact| in_pool(&fact.name)) {
        let value = format!("{} {} (EHLO {})", fact.name, fact.address, fact.host);
        rows.push(row("source", value, format!("it is in the pool, with weight {}", weight(&fact.name))));
    }
    if rows.len() == 1 {
        let why = match facts.is_empty() {
            true => "no source address is configured",
            false => "the pool has no address",
        };
        rows.push(row("source", "chosen by the system", why));
    }
    rows
}

fn tls(deps: &Deps, set: Option<&ConfigurationSet>) -> ExplainedRow {
    match set {
        Some(set) if set.tls == TlsPolicy::Require => row(
            "tls",
            "required",
            format!("configuration set {} asks for it; a host without does not get the mail", set.name),
        ),
        _ => {
            let why = match deps.world.delivery.tls.mta_sts {
                true => "no configuration set asks for more; DANE, MTA-STS and routes may, for a destination",
                false => "no configuration set asks for more; DANE and routes may, for a destination",
            };
            row("tls", "where it is offered", why)
        }
    }
}

fn return_path(deps: &Deps, resolved: Option<&Resolved>) -> Result<ExplainedRow, Error> {
    const WHAT: &str = "return-path";
    let settings = &deps.world.submission;
    if settings.return_path == ReturnPath::Sender {
        return Ok(row(WHAT, "as the client says in MAIL FROM", "submission.return_path is \"sender\""));
    }
    let mail_from = resolved.and_then(Resolved::mail_from);
    if let Some(mail_from) = mail_from.filter(|own| is_refused(own)) {
        let why = format!(
            "its MAIL FROM domain {} is {}, and it asks for no other",
            mail_from.domain,
            mail_from.status.as_str()
        );
        return Ok(row(WHAT, "refused", why));
    }
    if let Some(mail_from) = mail_from.filter(|mail_from| mail_from.is_usable()) {
        let why = "the identity's MAIL FROM domain, which is as it should be";
        return Ok(row(WHAT, format!("an address in {} that names the message", mail_from.domain), why));
    }
    let domain = settings.return_path_domain().map_err(|error| Error::Invalid(format!("submission.{error}")))?;
    let why = match mail_from {
        Some(own) => format!("the MAIL FROM domain {} is {}", own.domain, own.status.as_str()),
        None => "the identity has no MAIL FROM domain".to_owned(),
    };
    Ok(row(WHAT, format!("an address in {domain} that names the message"), why))
}
