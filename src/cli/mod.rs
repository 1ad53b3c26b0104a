//! Words in, exit code out: the commands.
//!
//! May import: base, wire, tracker, os, gateway, client, server, load, control.
//! Never here: anything that another program embedding this crate would miss.
