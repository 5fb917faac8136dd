//! Behaviour of the whole daemon.
