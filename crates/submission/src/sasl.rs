//! The authentication exchange of one client (RFC 4954), on rsasl.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use postrider_account::{AuthError, Authenticated, Credentials, Guard};
use postrider_base::Metrics;
use postrider_base::metrics::AuthResult;
use postrider_mail::sanitize_text;
use rsasl::callback::{Context, SessionCallback, SessionData};
use rsasl::config::SASLConfig;
use rsasl::mechname::Mechname;
use rsasl::prelude::{SASLServer, Session, State, Validation};
use rsasl::property::{AuthId, Password};
use rsasl::validate::{Validate, ValidationError};
use zeroize::Zeroizing;

use crate::Refusal;

/// Longest user name that is logged.
const MAX_LOGGED_USER: usize = 64;

/// What the client is to be told next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthStep {
    /// `334` with these bytes, which the SMTP side encodes in base64.
    Challenge(Vec<u8>),
    /// `235`: the client is who it says.
    Success(Authenticated),
    /// The exchange is over without success.
    Failure {
        /// What the client is told.
        refusal: Refusal,
        /// How long that is to be held back: guessing passwords takes time.
        delay: Duration,
    },
}

/// One exchange, from AUTH to its end. Mechanisms are `PLAIN` (RFC 4616) and `LOGIN`,
/// with and without an initial response. An authorization identity is accepted and
/// ignored, because Sendmail always sends one.
///
/// All bytes are what base64 stands for, not base64. Passwords are wiped from memory
/// when they have been looked at, and are never logged; user names of failures are.
pub struct SaslExchange {
    config: Arc<SASLConfig>,
    session: Option<Session<Verdict>>,
    guard: Guard,
    client: IpAddr,
    metrics: Metrics,
}

impl SaslExchange {
    pub(crate) fn new(config: Arc<SASLConfig>, guard: Guard, client: IpAddr, metrics: Metrics) -> Self {
        Self { config, session: None, guard, client, metrics }
    }

    /// Begins the exchange (anew) with the arguments of AUTH. The mechanism's name may be
    /// in any case.
    pub fn start(&mut self, mechanism: &str, initial: Option<Vec<u8>>) -> AuthStep {
        let initial = initial.map(Zeroizing::new);
        self.session = None;
        let server = SASLServer::<Verdict>::new(Arc::clone(&self.config));
        let name = mechanism.to_ascii_uppercase();
        let session = Mechname::parse(name.as_bytes()).ok().and_then(|name| server.start_suggested(name).ok());
        let Some(session) = session else {
            return self.fail(AuthResult::Aborted, Refusal::UnknownMechanism);
        };
        let server_first = session.are_we_first();
        self.session = Some(session);
        match (server_first, initial) {
            (true, None) => self.advance(None),
            // LOGIN in rsasl knows no initial response: its first prompt is skipped.
            (true, Some(initial)) => match self.advance(None) {
                AuthStep::Challenge(_) => self.advance(Some(&initial)),
                other => other,
            },
            // RFC 4954 section 4: an empty challenge asks for the response.
            (false, None) => AuthStep::Challenge(Vec::new()),
            (false, Some(initial)) => self.advance(Some(&initial)),
        }
    }

    /// Goes on with the client's response to a challenge.
    pub fn respond(&mut self, response: Vec<u8>) -> AuthStep {
        let response = Zeroizing::new(response);
        self.advance(Some(&response))
    }

    /// The client gave up, with `*` (RFC 4954 section 4) or by sending nonsense.
    pub fn cancel(&mut self) {
        self.session = None;
        self.metrics.auth.of(AuthResult::Aborted).inc();
    }

    fn advance(&mut self, input: Option<&[u8]>) -> AuthStep {
        let Some(mut session) = self.session.take() else {
            return self.fail(AuthResult::Aborted, Refusal::AuthFault);
        };
        let mut prompt = Vec::new();
        match session.step(input, &mut prompt) {
            Ok(State::Running) => {
                self.session = Some(session);
                AuthStep::Challenge(our_prompt(&prompt).to_vec())
            }
            // Finished means only that the exchange is over: the verdict is what counts.
            Ok(State::Finished(_)) => self.conclude(session.validation()),
            Err(error) => {
                tracing::debug!(client = %self.client, %error, "malformed authentication");
                let malformed = input.unwrap_or_default();
                self.wrong(AuthResult::Aborted, Refusal::InvalidCredentials, "", malformed)
            }
        }
    }

    fn conclude(&self, checked: Option<Checked>) -> AuthStep {
        let Some(checked) = checked else {
            return self.fail(AuthResult::Aborted, Refusal::AuthFault);
        };
        match checked.result {
            Ok(authenticated) => {
                self.metrics.auth.of(AuthResult::Success).inc();
                self.guard.succeeded(self.client);
                AuthStep::Success(authenticated)
            }
            Err(error) => {
                let user = sanitize_text(&checked.user, MAX_LOGGED_USER);
                tracing::info!(client = %self.client, user, "authentication failed: {error}");
                match error {
                    AuthError::Invalid => {
                        self.wrong(AuthResult::Invalid, error.into(), &checked.user, &checked.password)
                    }
                    // Whoever hears this knows the password.
                    AuthError::Disabled => self.fail(AuthResult::Disabled, error.into()),
                    _ => self.fail(AuthResult::Invalid, error.into()),
                }
            }
        }
    }

    /// A failure that counts against the client's address and the user.
    fn wrong(&self, result: AuthResult, refusal: Refusal, user: &str, password: &[u8]) -> AuthStep {
        let consequence = self.guard.failed(self.client, user, password);
        if !consequence.delay.is_zero() {
            self.metrics.auth_delayed.inc();
        }
        if consequence.banned {
            self.metrics.bans.inc();
        }
        self.metrics.auth.of(result).inc();
        AuthStep::Failure { refusal, delay: consequence.delay }
    }

    fn fail(&self, result: AuthResult, refusal: Refusal) -> AuthStep {
        self.metrics.auth.of(result).inc();
        AuthStep::Failure { refusal, delay: Duration::ZERO }
    }
}

impl std::fmt::Debug for SaslExchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SaslExchange").field("client", &self.client).finish_non_exhaustive()
    }
}

/// The mechanisms that the relay announces, checked against `credentials`.
pub(crate) fn config(credentials: Credentials) -> Arc<SASLConfig> {
    SASLConfig::builder()
        .with_defaults()
        .with_callback(Checker(credentials))
        .expect("PLAIN and LOGIN need nothing but a callback")
}

/// rsasl's prompts for LOGIN are those of a draft; clients compare with these.
fn our_prompt(prompt: &[u8]) -> &'static [u8] {
    if prompt.starts_with(b"User") { b"Username:" } else { b"Password:" }
}

/// Names the type of what comes out of an exchange.
struct Verdict;

impl Validation for Verdict {
    type Value = Checked;
}

/// What comes out of an exchange that was well-formed.
struct Checked {
    user: String,
    password: Zeroizing<Vec<u8>>,
    result: Result<Authenticated, AuthError>,
}

struct Checker(Credentials);

impl SessionCallback for Checker {
    fn validate(
        &self,
        _session: &SessionData,
        context: &Context<'_>,
        validate: &mut Validate<'_>,
    ) -> Result<(), ValidationError> {
        let missing = || ValidationError::MissingRequiredProperty;
        validate.with::<Verdict, _>(|| {
            let user = context.get_ref::<AuthId>().ok_or_else(missing)?;
            let password = context.get_ref::<Password>().ok_or_else(missing)?;
            let result = self.0.authenticate(user, password);
            Ok(Checked { user: user.to_owned(), password: Zeroizing::new(password.to_vec()), result })
        })?;
        Ok(())
    }
}
