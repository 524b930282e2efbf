//! The path in MAIL and RCPT, in every spelling that clients have for it.

/// Takes `FROM:` or `TO:` off, with the blanks that some clients put after it.
pub(super) fn strip_keyword<'a>(arguments: &'a str, keyword: &str) -> Option<&'a str> {
    let (head, rest) = arguments.split_at_checked(keyword.len())?;
    head.eq_ignore_ascii_case(keyword).then(|| rest.trim_start())
}

/// Splits `<path> parameters` or `path parameters`; the path comes without
/// brackets and without source route. `None` when there is none.
pub(super) fn split_path(text: &str) -> Option<(&str, &str)> {
    let bracketed = text.starts_with('<');
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        if std::mem::take(&mut escaped) {
            continue;
        }
        match c {
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if bracketed && !quoted => {
                let (path, rest) = (&text[1..at], &text[at + 1..]);
                let separated = rest.is_empty() || rest.starts_with([' ', '\t']);
                return separated.then(|| (strip_route(path.trim()), rest));
            }
            ' ' | '\t' if !bracketed && !quoted => return Some((&text[..at], &text[at..])),
            _ => {}
        }
    }
    (!bracketed && !quoted && !text.is_empty()).then_some((text, ""))
}

/// RFC 5321 section 4.1.1.3: a source route is accepted and ignored.
fn strip_route(path: &str) -> &str {
    match path.split_once(':') {
        Some((route, path)) if route.starts_with('@') => path,
        _ => path,
    }
}
