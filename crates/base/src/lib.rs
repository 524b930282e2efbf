//! The outside world, injectable: clock, randomness, network, disk, task scopes; telemetry and scalar settings. Knows nothing of mail.
