//! The durable queue: accepted messages, their recipients' outcomes, queues, claims and the feed. Decides nothing about mail.
