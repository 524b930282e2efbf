//! What is looked at again and again: whether identities and MAIL FROM domains are what
//! their owners say, which keys are due for rotation, and what the doctor finds. Slow work
//! on the injected clock; nothing here stands in a message's way.
