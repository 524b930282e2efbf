//! Lines of a notification: header fields and wrapped words.

use crate::sanitize_text;

/// Longest value of a field that we write; RFC 5322 section 2.1.1 allows a
/// line of 998 octets.
const MAX_VALUE: usize = 900;

/// A text of ours or of the network as one bounded line.
pub(super) fn value(text: &str) -> String {
    sanitize_text(text, MAX_VALUE)
}

/// Writes a field, folded at blanks where it is longer than 78 octets
/// (RFC 5322 section 2.1.1).
pub(super) fn field(out: &mut String, name: &str, text: &str) {
    out.push_str(name);
    out.push(':');
    let mut column = name.len() + 1;
    // Blanks are kept one by one: a quoted local part may hold two in a row.
    for word in value(text).trim().split(' ') {
        let full = column + 1 + word.len() > 78 && column > name.len() + 1;
        if full && !word.is_empty() {
            out.push_str("\r\n");
            column = 0;
        }
        out.push(' ');
        out.push_str(word);
        column += 1 + word.len();
    }
    out.push_str("\r\n");
}

/// Writes words for a reader, wrapped.
pub(super) fn paragraph(out: &mut String, text: &str) {
    wrapped(out, "", text);
}

/// Writes words for a reader, wrapped and set in.
pub(super) fn indented(out: &mut String, text: &str) {
    wrapped(out, "    ", text);
}

fn wrapped(out: &mut String, indent: &str, text: &str) {
    let mut column = 0;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if column == 0 {
            out.push_str(indent);
            column = indent.len();
        } else if column + 1 + word.len() > 76 {
            out.push_str("\r\n");
            out.push_str(indent);
            column = indent.len();
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
    }
    out.push_str("\r\n");
}
