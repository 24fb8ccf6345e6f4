//! A small synchronous HTTP server that knows its own load line.
#![forbid(unsafe_code)]

mod config;
mod error;
mod exchange;
mod frontend;
mod handler;
mod health;
mod report;
mod request;
mod response;
mod server;
mod workers;

pub use config::{Config, ConfigError, GateMode};
pub use error::Error;
pub use handler::Handler;
pub use health::{Ewma, GateState, Health, Snapshot, Totals};
pub use request::Request;
pub use response::{IntoResponse, Response};
pub use server::{Builder, Server};
