//! What an attempt did, written down for its outcomes.

use std::sync::Arc;

use postrider_mail::{AttemptRecord, sanitize_text};
use postrider_spool::Content;

use super::{Attempt, Turn};
use crate::connection::{Stop, Stopped};
use crate::progress::Progress;
use crate::trace::{self, Course};
use crate::worker::Connected;

/// Most bytes of a site's name: the hosts of a domain may be many.
const MAX_SITE: usize = 512;

impl Attempt<'_> {
    /// One transaction, taken down unless it goes as it should with the first
    /// host, of which the outcomes say enough.
    pub(super) async fn converse(
        &mut self,
        content: &Content,
        connected: &mut Connected,
        stop: &mut Stop,
        progress: &Progress,
    ) -> Result<Turn, Stopped> {
        let reused = connected.messages;
        if reused > 0 {
            connected.connection.conversation.forget();
        }
        let turn = self.transact(content, connected, stop).await?;
        self.level = Some(trace::level(connected.connection.level));
        let finding = match &turn {
            Turn::Reconnect => return Ok(turn),
            Turn::Decided(Course::Taken) if !progress.has_tried() => return Ok(turn),
            Turn::Decided(Course::Taken) => None,
            Turn::Decided(Course::Troubled(finding)) => finding.as_ref(),
            Turn::NextHost(finding) => Some(finding),
        };
        let host = trace::session(&connected.connection, reused);
        progress.tried(match finding {
            Some(finding) => trace::with_finding(host, finding),
            None => host,
        });
        Ok(turn)
    }

    /// The record of the attempt, which is over.
    pub(super) fn record(&self, progress: &Progress) -> Arc<AttemptRecord> {
        Arc::new(AttemptRecord {
            began: self.started_at,
            site: sanitize_text(&*self.site.target.name, MAX_SITE),
            ehlo: self.site.lane.hello(&self.config).to_owned(),
            level: self.level,
            ..progress.take_tried()
        })
    }
}
