//! TLS and who the client is.

use bytes::BytesMut;

use super::profile::TlsMode;
use super::replies::{self, Canned};
use super::session::{Answer, AuthEvent, Event, Phase, Session};
use crate::wire::{Command, Line};

/// STARTTLS (RFC 3207).
impl Session {
    pub(super) fn start_tls(&mut self, input: &mut BytesMut) -> Option<Event> {
        if self.tls {
            return self.error(replies::TLS_ACTIVE);
        }
        if self.profile.tls != TlsMode::StartTls {
            return self.error(replies::NOT_IMPLEMENTED);
        }
        // What came with the command was not protected: anyone on the way could
        // have put it there.
        input.clear();
        self.say(replies::READY_FOR_TLS);
        self.phase = Phase::Handshake;
        Some(Event::StartTls)
    }

    /// RFC 3207 section 4: what is left to do before TLS, where it is forced.
    /// HELO is too, for those who only look whether the service is there.
    pub(super) fn needs_tls(&self) -> bool {
        let clear = self.profile.tls == TlsMode::StartTls && !self.tls;
        self.profile.require_tls_first && clear && !self.clear_allowed
    }

    /// Why the client may not send mail yet.
    pub(super) fn locked(&self) -> Option<Canned> {
        let unknown = !self.authenticated && !self.identified;
        match () {
            () if self.needs_tls() => Some(replies::NEED_TLS),
            () if self.profile.require_auth && unknown => Some(replies::NEED_AUTH),
            () => None,
        }
    }
}

/// AUTH (RFC 4954).
impl Session {
    /// RFC 4954 section 4: plain text mechanisms only inside TLS, where there is TLS.
    pub(super) fn may_authenticate(&self) -> bool {
        self.profile.auth && (self.tls || self.profile.tls == TlsMode::None)
    }

    pub(super) fn auth(&mut self, mechanism: String, initial: Option<Vec<u8>>) -> Option<Event> {
        let refusal = match () {
            () if !self.profile.auth => replies::AUTH_NOT_OFFERED,
            () if !self.may_authenticate() => replies::NEED_TLS,
            () if self.client.is_none() => replies::NEED_HELLO,
            () if self.authenticated => replies::AUTH_DONE,
            () if self.transaction.is_some() => replies::AUTH_IN_MAIL,
            () => return self.ask(Event::Auth(AuthEvent::Start { mechanism, initial }), Answer::Auth),
        };
        self.error(refusal)
    }

    pub(super) fn read_response(&mut self, input: &mut BytesMut) -> Option<Event> {
        let line = match self.lines.next(input) {
            Line::Incomplete => return Some(Event::NeedInput),
            Line::TooLong(_) => {
                self.note_too_long();
                return self.give_up_auth(replies::AUTH_TOO_LONG);
            }
            Line::Full(line) => line,
        };
        if let Some(transcript) = &mut self.transcript {
            transcript.response(&line);
        }
        if line.trim_ascii() == b"*" {
            return self.give_up_auth(replies::AUTH_CANCELLED);
        }
        match Command::decode_response(&line) {
            Some(response) => self.ask(Event::Auth(AuthEvent::Response(response)), Answer::Auth),
            None => self.give_up_auth(replies::AUTH_MALFORMED),
        }
    }

    fn give_up_auth(&mut self, reply: Canned) -> Option<Event> {
        self.phase = Phase::Commands;
        self.error(reply);
        Some(Event::Auth(AuthEvent::Cancelled))
    }
}
