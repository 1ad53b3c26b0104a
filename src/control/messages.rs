//! DATA of clients as server-sent events, of one topic or of all.
//!
//! A follower is a [`Sink`] of the [hub](crate::control::hub): whatever it has not taken holds its
//! clients' credit. A message is taken when the connection has taken the piece that it is in; the
//! next piece is made only then. So at most one piece is on its way to a follower, and whoever does
//! not read holds up clients until its connection is given up, after
//! [`HTTP_WRITE_PATIENCE`](limits::HTTP_WRITE_PATIENCE).

use std::sync::Arc;

use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::Sender;
use tokio::time::sleep;

use crate::base::limits;
use crate::control::api::problem::{Kind, Problem};
use crate::control::api::{Answer, Api, Asked, pieces_of, with_type};
use crate::control::events::Identity;
use crate::control::feed::{EVENT_STREAM, HEARTBEAT, after, follows, place};
use crate::control::hub::{Message, Sink};
use crate::control::journal::Position;

/// A message in JSON.
#[derive(Serialize)]
struct Line<'a> {
    client: &'a str,
    epoch: u64,
    seq: u32,
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    at_unix_ms: u64,
    node: &'a str,
    boot: u64,
    useq: u64,
}

/// Appends a message as one line of JSON, without its end. A body that is UTF-8 is `text`, any
/// other is `base64`.
pub fn append_json(message: &Message, identity: &Identity, out: &mut Vec<u8>) {
    let record = &message.record;
    let text = std::str::from_utf8(&record.body).ok();
    let line = Line {
        client: record.client.as_str(),
        epoch: record.ticket.epoch,
        seq: record.seq,
        topic: &record.topic,
        text,
        base64: text.is_none().then(|| STANDARD.encode(&record.body)),
        at_unix_ms: message.at_unix_ms,
        node: &identity.node,
        boot: identity.boot,
        useq: message.useq,
    };
    serde_json::to_writer(out, &line).expect("texts and numbers");
}

/// `GET /v1/messages`
pub(crate) async fn messages(asked: Asked) -> Answer {
    let place = place(&asked.api)?;
    let after = after(&asked, "BOOT:USEQ")?;
    let follows = follows(&asked)?;
    let gone = |detail: String| Problem::new(Kind::Gone, detail);
    let Identity { boot, .. } = asked.api.identity;
    if let Some(after) = after.filter(|after| after.boot != boot) {
        return Err(gone(format!("{after} is of another boot, and messages are kept in memory")));
    }
    let useq = after.map(|after| after.seq);
    let last = asked.api.hub.last_useq();
    if let Some(after) = after.filter(|after| after.seq > last) {
        return Err(gone(format!("{after} is no message of this gateway")));
    }
    let sink = asked.api.hub.subscribe(asked.parameter("topic"), useq);
    let sink = sink.map_err(|_| gone("what follows is no longer in memory".to_owned()))?;
    let start = Position { boot, seq: useq.unwrap_or(last) };
    let (sender, body) = pieces_of(1);
    let follower = Follower { api: asked.api, place, sink, sender, follows };
    tokio::spawn(follower.run(start));
    Ok(with_type(StatusCode::OK, EVENT_STREAM, body))
}

/// One who follows.
struct Follower {
    api: Arc<Api>,
    /// Kept until it goes.
    place: OwnedSemaphorePermit,
    sink: Sink,
    sender: Sender<Bytes>,
    follows: bool,
}

impl Follower {
    async fn run(self, start: Position) {
        let Self { api, place, mut sink, sender, follows } = self;
        // With it, whoever is cut off before the first message goes on here.
        if sender.send(format!("id: {start}\n\n").into()).await.is_err() {
            return;
        }
        let mut on_its_way = None;
        // There is room for one piece: what was sent before was taken.
        while let Ok(room) = sender.reserve().await {
            if let Some(upto) = on_its_way.take() {
                sink.done(upto);
            }
            let batch = sink.take(limits::DATA_BATCH_MAX, limits::DATA_BATCH_BYTES_MAX);
            if sink.missed() > 0 {
                // Whoever asks again from its last one is told that.
                break;
            }
            if let Some(last) = batch.last() {
                on_its_way = Some(last.useq);
                room.send(piece(&batch, &api.identity));
                continue;
            }
            if !follows {
                break;
            }
            tokio::select! {
                changed = sink.changed() => if changed.is_err() { break },
                () = sender.closed() => break,
                () = sleep(limits::FEED_HEARTBEAT.into()) => {
                    room.send(Bytes::from_static(HEARTBEAT));
                }
            }
        }
        drop(place);
    }
}

fn piece(batch: &[Arc<Message>], identity: &Identity) -> Bytes {
    let mut piece = Vec::new();
    for message in batch {
        let id = Position { boot: identity.boot, seq: message.useq };
        piece.extend_from_slice(format!("id: {id}\ndata: ").as_bytes());
        append_json(message, identity, &mut piece);
        piece.extend_from_slice(b"\n\n");
    }
    piece.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::data::{DataRecord, DataTicket};
    use crate::base::ids::ClientId;
    use crate::base::time::Moment;

    #[test]
    fn a_body_is_text_where_it_can_be_and_nothing_breaks_a_line() {
        let identity = Identity { node: "north".to_owned(), boot: 7 };
        for (body, expected) in [
            (&b"a\r\nb\xe2\x80\xa8\""[..], "\"text\":\"a\\r\\nb\u{2028}\\\"\""),
            (b"", "\"text\":\"\""),
            (b"\xff\x00", "\"base64\":\"/wA=\""),
        ] {
            let record = DataRecord {
                ticket: DataTicket { epoch: 5, number: 0 },
                client: ClientId::new("c").expect("an id"),
                seq: 3,
                topic: "t".into(),
                body: body.into(),
                at: Moment::ZERO,
            };
            let message = Message { useq: 9, record, at_unix_ms: 11 };
            let mut line = Vec::new();
            append_json(&message, &identity, &mut line);
            let line = String::from_utf8(line).expect("it is text");
            assert_eq!(
                line,
                format!(
                    "{{\"client\":\"c\",\"epoch\":5,\"seq\":3,\"topic\":\"t\",{expected},\
                     \"at_unix_ms\":11,\"node\":\"north\",\"boot\":7,\"useq\":9}}"
                )
            );
        }
    }
}
