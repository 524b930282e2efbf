//! Acceptance: authenticate, decide, rewrite headers, commit; for SMTP, HTTP and our own mail.
