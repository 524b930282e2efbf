//! Small typed durable tables: a log with a sled view behind it. Not for messages.
