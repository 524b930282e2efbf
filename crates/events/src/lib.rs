//! What the spool's feed turns into: SES event records in the journal, the mail log, statistics.
