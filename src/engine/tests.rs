//! Engine tests as data: events in, exact actions out.
