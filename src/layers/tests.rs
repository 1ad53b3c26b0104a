//! The layers between a pretend kernel and a pretend gateway.
