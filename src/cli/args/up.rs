//! What clients send up.

use clap::Args;

use crate::base::limits;
use crate::cli::error::CliError;

/// How much of what clients send up may wait.
#[derive(Args, Clone, Debug, Default, Eq, PartialEq)]
pub struct UpArgs {
    /// Bytes of DATA that may wait to be taken by backends, of all clients together, before those
    /// who sent most are not read any further (default: 8388608)
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub up_bytes: Option<u64>,
}

impl UpArgs {
    /// The budget of all shards together, in bytes.
    pub fn bytes(&self) -> Result<usize, CliError> {
        let Some(bytes) = self.up_bytes else { return Ok(limits::UP_BYTES_DEFAULT) };
        let (min, max) = (limits::UP_BYTES_MIN, limits::UP_BYTES_LIMIT);
        let fits = usize::try_from(bytes).ok().filter(|bytes| (min..=max).contains(bytes));
        fits.ok_or_else(|| {
            CliError::usage(format!("up-bytes {bytes} is out of bounds; expected {min} to {max}"))
        })
    }
}
