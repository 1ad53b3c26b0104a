//! Who is here, under which name, and until when.
//!
//! May import: base.
//! Never here: bytes, sockets, messages. Three structures that must agree, and nothing else.
