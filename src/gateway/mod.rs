//! What we do: connections become sessions, sessions end, and the ledger says so.
//!
//! May import: base, wire, tracker.
//! Never here: sockets, threads, the clock. It is told what happened and when, and says what to do.
