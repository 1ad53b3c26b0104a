//! Flags of `ctl` on messages for clients and on groups.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use crate::base::time::Span;
use crate::cli::values::parse_span;

/// `ctl push` as typed.
#[derive(Args, Clone, Debug)]
#[command(
    group(ArgGroup::new("whom").required(true).args(["client", "group", "all"])),
    group(ArgGroup::new("what").required(true).args(["text", "base64", "file"])),
    after_help = "\
A message to a client is delivered (handed to the kernel), acked (the client has it), queued (it
waits behind others, or for the client to come back), offline (not here, but of late), slow (it does
not take what waits for it) or unknown. Of the last three the command says so and exits with 1.

A message to a group or to all is sent to some clients in each turn of the loop. The command waits
until everybody has got a turn, and prints how many are how far.

Examples:
  heartwheel ctl push till-12 --text hello
  heartwheel ctl push till-12 --topic firmware --file part-7.bin --ack --wait 10s
  heartwheel ctl push --all --text 'going down at nine' --per-second 500"
)]
pub struct CtlPushArgs {
    /// The client id of whom it is for
    pub client: Option<String>,
    /// To everybody in this group
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// To everybody
    #[arg(long)]
    pub all: bool,
    /// What it is about (default: nothing)
    #[arg(long, value_name = "TEXT")]
    pub topic: Option<String>,
    /// The content, as text
    #[arg(long, value_name = "TEXT")]
    pub text: Option<String>,
    /// The content, as bytes in base64
    #[arg(long, value_name = "BASE64")]
    pub base64: Option<String>,
    /// The content, from a file; -: from standard input
    #[arg(long, value_name = "FILE|-")]
    pub file: Option<PathBuf>,
    /// Ask the client for an ACK, and send it again until there is one
    #[arg(long)]
    pub ack: bool,
    /// For how long it may wait for its client (default: as the gateway was told)
    #[arg(long, value_name = "D", value_parser = parse_span)]
    pub ttl: Option<Span>,
    /// How long to wait until it is delivered, or acked where --ack says so (default: a moment)
    #[arg(long, value_name = "D", value_parser = parse_span)]
    pub wait: Option<Span>,
    /// Only to this session
    #[arg(long, value_name = "N", conflicts_with_all = ["group", "all"])]
    pub epoch: Option<u64>,
    /// To so many clients in a second (default: as the gateway was told)
    #[arg(long, value_name = "N", conflicts_with = "client")]
    pub per_second: Option<u32>,
}

/// `ctl group` as typed.
#[derive(Clone, Debug, Subcommand)]
pub enum CtlGroupCommand {
    /// Put clients into a group, for as long as their sessions last
    Add(CtlGroupArgs),
    /// Take clients out of a group
    Remove(CtlGroupArgs),
    /// Print all groups, or who is in one
    List {
        /// Who is in this one
        group: Option<String>,
    },
}

/// A group and clients, as typed.
#[derive(Args, Clone, Debug)]
pub struct CtlGroupArgs {
    /// The name of the group
    pub group: String,
    /// Their client ids
    #[arg(required = true, value_name = "CLIENT")]
    pub clients: Vec<String>,
}
