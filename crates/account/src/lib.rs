//! What a sender owns: credentials, suppression lists, accounts; and the decisions about them.
