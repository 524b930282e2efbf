//! HTTP: metrics and health. No logic in handlers.
