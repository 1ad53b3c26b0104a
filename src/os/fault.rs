//! Error numbers of the kernel, as far as anybody decides by them.

use crate::base::io::IoFault;

/// The fault that a negative result of a completion stands for.
pub(crate) fn fault_of_result(result: i32) -> IoFault {
    fault_of_errno(-result)
}

/// The fault that a failed system call stands for.
pub(crate) fn fault_of_error(error: rustix::io::Errno) -> IoFault {
    fault_of_errno(error.raw_os_error())
}

fn fault_of_errno(errno: i32) -> IoFault {
    match errno {
        libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED => IoFault::Reset,
        libc::ETIMEDOUT => IoFault::TimedOut,
        libc::ECONNREFUSED => IoFault::Refused,
        libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENETDOWN | libc::EHOSTDOWN => {
            IoFault::Unreachable
        }
        libc::EADDRINUSE | libc::EADDRNOTAVAIL => IoFault::AddressUnavailable,
        libc::ECANCELED => IoFault::Cancelled,
        libc::EMFILE | libc::ENFILE => IoFault::NoDescriptors,
        libc::ENOMEM | libc::ENOBUFS => IoFault::NoMemory,
        other => IoFault::Other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_a_meaning() {
        for (errno, fault) in [
            (libc::ECONNRESET, IoFault::Reset),
            (libc::EPIPE, IoFault::Reset),
            (libc::ETIMEDOUT, IoFault::TimedOut),
            (libc::ECONNREFUSED, IoFault::Refused),
            (libc::ENETUNREACH, IoFault::Unreachable),
            (libc::EADDRNOTAVAIL, IoFault::AddressUnavailable),
            (libc::ECANCELED, IoFault::Cancelled),
            (libc::ENFILE, IoFault::NoDescriptors),
            (libc::ENOMEM, IoFault::NoMemory),
            (libc::EPROTO, IoFault::Other(libc::EPROTO)),
        ] {
            assert_eq!(fault_of_result(-errno), fault, "{errno}");
        }
    }
}
