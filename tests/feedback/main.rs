//! What comes back: the real daemon, whose return paths name message and recipient, real mail
//! servers that take its mail and bounce it later, providers that report complaints, and those
//! who forge, repeat, answer automatically or cut the line.

mod bounces;
mod complaints;
mod doctor;
mod hostile;
mod loops;
mod once;
mod reports;
mod return_paths;
mod world;

use std::error::Error;

type Outcome = Result<(), Box<dyn Error>>;
