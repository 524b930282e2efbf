//! Sockets, TLS and limits: drives SMTP sessions for submission.
