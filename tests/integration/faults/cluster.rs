//! Faults of a cluster: members that die, and networks that part.
