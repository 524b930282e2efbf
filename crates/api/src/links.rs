//! The page that a mailed link leads to. It asks before it confirms: programs that look at
//! links in mail open pages, and press no buttons.

use std::pin::Pin;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::Sources;

/// What becomes of a confirmation: the address, or why not.
pub type Confirmation<'a> = Pin<Box<dyn Future<Output = Result<String, String>> + Send + 'a>>;

/// What mailed links prove.
pub trait Links: Send + Sync {
    /// The address that a token would prove; or why it would not, for its bearer to read.
    /// Changes nothing.
    ///
    /// # Errors
    /// A sentence.
    fn address(&self, token: &str) -> Result<String, String>;

    /// Takes the bearer's word for it.
    fn confirm<'a>(&'a self, token: &'a str) -> Confirmation<'a>;
}

/// Longer ones are not ours.
const MAX_TOKEN: usize = 1024;

/// What a browser may do with the page, which holds a secret: nothing but show it, and hand
/// in its form.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'";

pub(crate) fn router() -> Router<Sources> {
    Router::new().route("/verify", get(ask).post(confirm))
}

async fn ask(State(sources): State<Sources>, RawQuery(query): RawQuery) -> Response {
    let Some(links) = &sources.links else { return StatusCode::NOT_FOUND.into_response() };
    let Some(token) = token(query.as_deref().unwrap_or_default()) else { return unknown() };
    match links.address(token) {
        Ok(address) => {
            let address = escaped(&address);
            page(
                StatusCode::OK,
                &format!(
                    "<p>Mail may be sent in the name of <b>{address}</b>, if you confirm it.</p>\
                     <form method=\"post\" action=\"?t={token}\"><button>Confirm</button></form>\
                     <p>If you do not know what this is about, close this page.</p>"
                ),
            )
        }
        Err(reason) => refused(&reason),
    }
}

async fn confirm(State(sources): State<Sources>, RawQuery(query): RawQuery) -> Response {
    let Some(links) = &sources.links else { return StatusCode::NOT_FOUND.into_response() };
    let Some(token) = token(query.as_deref().unwrap_or_default()) else { return unknown() };
    match links.confirm(token).await {
        Ok(address) => page(StatusCode::OK, &format!("<p><b>{}</b> is confirmed.</p>", escaped(&address))),
        Err(reason) => refused(&reason),
    }
}

/// The token in `t=TOKEN`: characters that mean nothing in HTML or in a query.
fn token(query: &str) -> Option<&str> {
    let token = query.split('&').find_map(|pair| pair.strip_prefix("t="))?;
    let is_ours = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    Some(token).filter(|token| (1..=MAX_TOKEN).contains(&token.len()) && token.bytes().all(is_ours))
}

fn unknown() -> Response {
    refused("This link is not complete.")
}

fn refused(reason: &str) -> Response {
    page(StatusCode::BAD_REQUEST, &format!("<p>{}</p>", escaped(reason)))
}

fn page(status: StatusCode, body: &str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"robots\" content=\"noindex\">\
         <title>Confirm an address</title><style>body{{font:1.1em sans-serif;max-width:34em;margin:4em auto}}</style>\
         {body}</html>\n"
    );
    (status, headers, page).into_response()
}

/// Text that HTML takes for text.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            character => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_plain() {
        assert_eq!(token("t=Ab-_9"), Some("Ab-_9"));
        assert_eq!(token("utm=x&t=A"), Some("A"));
        for bad in ["", "t=", "x=A", "t=a%20b", "t=<b>", "t=\"", &format!("t={}", "a".repeat(MAX_TOKEN + 1))] {
            assert_eq!(token(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_address_is_no_html() {
        assert_eq!(escaped("\"<b>&'\"@example.com"), "&quot;&lt;b&gt;&amp;&#39;&quot;@example.com");
    }
}
