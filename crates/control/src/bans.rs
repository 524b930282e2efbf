//! Bans of addresses that guessed passwords.

use postrider_account::{Ban, Guard};

use crate::response::BanView;
use crate::{BanOperation, Error, Response};

pub(crate) async fn execute(guard: &Guard, operation: BanOperation) -> Result<Response, Error> {
    Ok(match operation {
        BanOperation::List => Response::Bans(guard.bans().into_iter().map(BanView::from).collect()),
        BanOperation::Clear { network } => Response::Changed { count: guard.clear(network).await? },
    })
}

impl From<Ban> for BanView {
    fn from(ban: Ban) -> BanView {
        let Ban { network, since, until, times, users } = ban;
        BanView { network, since, until, times, users }
    }
}
