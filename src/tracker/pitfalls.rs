//! The pitfalls of timing wheels, each one a test.
