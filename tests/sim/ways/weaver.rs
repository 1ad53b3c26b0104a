//! Where among a client's frames the gateway finds those that a WebSocket puts there: a control
//! frame is a sign of life, told between two native frames, and at most one of them behind each.

use heartwheel::base::event::CloseReason;

use crate::script::Label;
use crate::ways::Parcel;
use crate::ways::websocket::Sign;

#[derive(Default)]
pub(super) struct Weaver {
    /// A native frame is begun.
    is_within: bool,
    /// It waits for the end of that.
    pending: Option<Sign>,
    /// What is said is no stream of frames any more.
    is_wild: bool,
    pub(super) is_welcome: bool,
}

impl Weaver {
    /// Whether a control frame comes up as a frame, as far as can be said.
    pub(super) fn may_sign(&self) -> bool {
        self.is_welcome && !self.is_wild
    }

    /// These bytes are said, in which frames end here.
    pub(super) fn weave(&mut self, bytes: &[u8], ends: &[(usize, Label)], parcel: &mut Parcel) {
        let mut from = 0;
        for (end, label) in ends {
            self.is_wild |= matches!(label, Label::Bad(_));
            parcel.native.extend_from_slice(&bytes[from..*end]);
            parcel.ends.push((parcel.native.len(), *label));
            from = *end;
            if *label == Label::Bad(CloseReason::FrameTooLong) {
                self.pending = None; // that frame is not over here, nor ever
            }
            if let Some(sign) = self.pending.take() {
                tell(sign, parcel);
            }
        }
        parcel.native.extend_from_slice(&bytes[from..]);
        if !bytes.is_empty() {
            self.is_within = from < bytes.len();
        }
    }

    /// A control frame is said.
    pub(super) fn sign(&mut self, sign: Sign, parcel: &mut Parcel) {
        match self.is_within {
            true => self.pending = Some(sign),
            false => tell(sign, parcel),
        }
    }
}

fn tell(sign: Sign, parcel: &mut Parcel) {
    // PING that wants no answer, and PONG.
    let frame = match sign {
        Sign::Ping => [3, 1, 0, 0],
        Sign::Pong => [4, 0, 0, 0],
    };
    parcel.native.extend(frame);
    parcel.ends.push((parcel.native.len(), Label::Beat));
}
