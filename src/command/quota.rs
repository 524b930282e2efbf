//! `postrider quota`.

use anyhow::Result;
use postrider_control::{Operation, QuotaView, Response};
use postrider_mail::AccountId;

use super::unexpected;
use crate::access::Access;
use crate::output::Output;

pub(crate) async fn run(account: Option<AccountId>, access: &mut Access, out: &mut Output) -> Result<()> {
    let mut quotas: Vec<QuotaView> = Vec::new();
    let mut take = |response| match response {
        Response::Quotas(page) => {
            quotas.extend(page);
            Ok(())
        }
        other => unexpected(&other),
    };
    access.each(Operation::Quota { account }, &mut take).await?;
    if out.json() {
        return out.json_document(&quotas);
    }
    let rows = quotas.into_iter().map(|quota| {
        let bound = |bound: i64| if bound < 0 { "-".to_owned() } else { bound.to_string() };
        let percent = match u64::try_from(quota.max_24_hour_send) {
            Ok(max) if max > 0 => format!("{}%", u128::from(quota.sent_last_24_hours) * 100 / u128::from(max)),
            _ => "-".to_owned(),
        };
        let (day, rate) = (bound(quota.max_24_hour_send), bound(quota.max_send_rate));
        vec![quota.account_id.to_string(), quota.sent_last_24_hours.to_string(), day, percent, rate]
    });
    let header = ["ACCOUNT", "SENT IN 24 H", "MAX IN 24 H", "USED", "MAX A SECOND"];
    out.table(&header, rows.collect(), "no account has a quota or has sent anything in the last 24 hours")
}
