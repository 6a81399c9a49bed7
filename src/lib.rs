//! Consumes deletion requests from RabbitMQ, coalesces their IDs into full calls of the delete endpoint, and
//! settles every message: acknowledged once all its IDs are deleted, dead-lettered with a reason, or given back.
//!
//! # Glossary
//!
//! One word per concept, here and in the code:
//!
//! | word | meaning |
//! | --- | --- |
//! | Delivery | what the broker handed us: a message on one channel, under a [`Tag`](delivery::Tag) |
//! | Epoch | the life of one consuming channel; tags mean nothing outside their epoch |
//! | Request | what a delivery asks for: one or more IDs, at most one namespace |
//! | Id | one video number |
//! | Batch | IDs that share their next call, and their fate if it fails |
//! | Call | one HTTP request to the delete endpoint |
//! | Answer, Outcome | what came of a call, and the class it falls into |
//! | Strike | a failure charged to a batch, because the endpoint was healthy before and after it |
//! | Verdict | our decision on a delivery: acknowledge, dead-letter, give back |
//! | Settlement | carrying a verdict out |
//! | Drain | the orderly way to the exit |

pub mod admin;
pub mod answer;
pub mod broker;
pub mod command;
pub mod config;
pub mod delivery;
pub mod endpoint;
pub mod engine;
pub mod id;
mod lifeline;
pub mod log;
pub mod metrics;
pub mod mock;
pub mod rabbitmq;
pub mod request;
pub mod retry;
pub mod status;
mod text;
pub mod worker;
