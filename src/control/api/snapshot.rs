//! Who is online, all of them, true at one number of the ledger.
//!
//! The loop gives a page at a time; what happened between two pages is in the events, and both
//! together are folded into one truth, as the journal does for its segments.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode};
use bytes::Bytes;
use tokio::sync::mpsc::Sender;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;

use crate::base::limits;
use crate::base::time::Moment;
use crate::control::api::clients::unexpected;
use crate::control::api::problem::{Kind, Problem};
use crate::control::api::{Answer, Api, Asked, pieces, with_type};
use crate::control::door::{LoopHandle, Newest};
use crate::control::journal::{Fold, Page, Position, Present, Taken};
use crate::gateway::{Command, Reply};
use crate::server::mailbox::Ticket;

/// `GET /v1/snapshot`
pub(crate) async fn take(asked: Asked) -> Answer {
    let place = asked.api.snapshots.clone().try_acquire_owned();
    let place = place.map_err(|_| Problem::new(Kind::Busy, "a snapshot is being taken"))?;
    for _ in 0..limits::SNAPSHOT_ATTEMPTS_MAX {
        if let Some(fold) = attempt(&asked.api.door).await? {
            return Ok(answer(&asked.api, fold, place));
        }
    }
    Err(Problem::new(Kind::Busy, "too much happens for a snapshot"))
}

/// `None`: more happened meanwhile than is kept in memory.
async fn attempt(door: &LoopHandle) -> Result<Option<Fold>, Problem> {
    let mut newest = door.subscribe();
    let mut fold = Fold::new(Moment::ZERO, newest.borrow_and_update().seq);
    let mut question = 0;
    while let Some(from_slot) = fold.wants_page_from() {
        question += 1;
        let ticket = Ticket(question);
        fold.on_asked(ticket);
        let command = Command::Clients { from_slot, limit: limits::CLIENTS_PAGE_MAX };
        let Reply::Clients { seq, clients, next_slot } = door.ask(command).await? else {
            return Err(unexpected());
        };
        // Events that the page does not know are not looked at before it.
        if fold.on_page(Page { ticket, seq, clients, next_slot }) == Taken::Broken {
            return Ok(None);
        }
        if !catch_up(door, &mut fold) {
            return Ok(None);
        }
    }
    while !fold.is_complete() {
        wait(&mut newest).await?;
        if !catch_up(door, &mut fold) {
            return Ok(None);
        }
    }
    Ok(Some(fold))
}

/// Lets the fold see every event that is there. `false`: some are gone.
fn catch_up(door: &LoopHandle, fold: &mut Fold) -> bool {
    loop {
        let Ok(events) = door.events_after(fold.seq(), limits::FEED_BATCH_MAX) else {
            return false;
        };
        if events.is_empty() {
            return true;
        }
        events.iter().for_each(|dated| fold.on_record(&dated.record));
    }
}

async fn wait(newest: &mut watch::Receiver<Newest>) -> Result<(), Problem> {
    let no_answer = |why: &str| Problem::new(Kind::NoAnswer, why);
    match timeout(limits::ASK_PATIENCE.into(), newest.changed()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(no_answer("the loop has ended")),
        Err(_) => Err(no_answer("the events up to the snapshot do not come; is their file full?")),
    }
}

fn answer(api: &Api, fold: Fold, place: OwnedSemaphorePermit) -> axum::response::Response {
    let position = Position { boot: api.identity.boot, seq: fold.seq() };
    let head = format!(
        "{{\"node\":{},\"boot\":{},\"seq\":{},\"position\":\"{position}\",\"online\":{},\
         \"clients\":[",
        serde_json::Value::from(api.identity.node.as_str()),
        position.boot,
        position.seq,
        fold.clients().len(),
    );
    let (sender, body) = pieces();
    tokio::spawn(async move {
        // Whoever does not read to the end does not want to know.
        let _ = write(&sender, head, &fold).await;
        drop(place);
    });
    let json = HeaderValue::from_static("application/json");
    with_type(StatusCode::OK, json, Body::new(body))
}

async fn write(sender: &Sender<Bytes>, head: String, fold: &Fold) -> Result<(), ()> {
    let mut piece = head.into_bytes();
    for (at, presence) in fold.clients().enumerate() {
        if at > 0 {
            piece.push(b',');
        }
        serde_json::to_writer(&mut piece, &Present::from(presence)).expect("texts and numbers");
        if piece.len() >= limits::HTTP_PIECE_BYTES {
            sender.send(std::mem::take(&mut piece).into()).await.map_err(drop)?;
        }
    }
    piece.extend_from_slice(b"]}");
    sender.send(piece.into()).await.map_err(drop)
}
