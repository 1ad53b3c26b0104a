//! The loop: completions from the ring to the gateway, operations from the gateway to the ring.
//!
//! May import: base, os, gateway.
//! Never here: protocol, verdicts, files. A turn is a dozen lines and stays so.
