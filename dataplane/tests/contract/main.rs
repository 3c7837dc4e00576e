//! The contract of `Io`: scripted scenarios, the same ones for every backend of it. A difference is a failure.
#![allow(unreachable_pub, reason = "the scenarios are written like a library: each backend's tests use them")]
#![allow(clippy::unwrap_used, reason = "tests; clippy's own exception covers only functions marked as such")]

mod child;
mod forbidden;
mod harness;
mod post;
mod ring;
mod scenarios;
mod sim;
mod standing;
mod stress;
