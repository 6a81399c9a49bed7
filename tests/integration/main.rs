//! The parts against real ones: a real RabbitMQ, real sockets, the real binary.
//!
//! Needs what `deletion-worker demo` needs: `AMQP_URL`, or Docker, or an installed RabbitMQ.

mod answers;
mod basics;
mod batching;
mod broker_faults;
mod contract;
mod dead_letters;
mod demo;
mod faults;
mod morgue;
mod namespaces;
mod observability;
mod outage;
mod poison;
mod processes;
mod provide;
mod proxy;
mod publishing;
mod rabbitmq;
mod security;
mod shell;
mod soak;
mod startup;
mod support;
mod tls;
mod versions;
