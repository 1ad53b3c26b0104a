//! What is said on the connection, and how it looks in bytes.
//!
//! May import: base.
//! Never here: connections, sessions, time. Bytes in, messages out, and back.
