//! The same client as `client.py`, with the crate's own.
//!
//! `cargo run --example client -- 127.0.0.1:7070 device-7 [interval-ms] [beats]`
//!
//! The variable TOKEN proves the client id to a gateway that asks for it.

use std::process::ExitCode;

use heartwheel::base::ids::ClientId;
use heartwheel::base::time::Span;
use heartwheel::client::{Client, Loss, News, Profile};

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("client: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let usage = "usage: client HOST:PORT ID [INTERVAL-MS] [BEATS]";
    let home = words.next().ok_or(usage)?;
    let mut profile = Profile::new(ClientId::new(&words.next().ok_or(usage)?)?);
    profile.token = std::env::var("TOKEN").unwrap_or_default().into_bytes();
    if let Some(interval_ms) = words.next() {
        profile.wanted_interval = Span::from_millis(interval_ms.parse()?);
    }
    let mut beats_left: u64 = words.next().map_or(Ok(u64::MAX), |beats| beats.parse())?;

    let mut client = Client::new(home, profile)?;
    while beats_left > 0 {
        let Some(news) = client.wait(Span::from_secs(1)) else { continue };
        match news {
            News::Welcome { epoch, resumed, interval, timeout, .. } => println!(
                "welcome epoch={epoch} resumed={resumed} interval_ms={} timeout_ms={}",
                interval.as_millis(),
                timeout.as_millis()
            ),
            News::Pong { .. } => {
                beats_left -= 1;
                println!("pong");
            }
            News::Data { topic, body, .. } => println!("data {topic:?} {} bytes", body.len()),
            News::Acked { seq } => println!("acked {seq}"),
            News::Rhythm { interval, timeout } => println!("rhythm {interval} {timeout}"),
            News::Goaway { code, text, back_in } => {
                let back_in = back_in.map_or("never".to_owned(), |span| format!("in {span}"));
                println!("goaway code={code} {text:?}, back {back_in}");
            }
            News::Refused { code, text, .. } => println!("error code={code} {text:?}"),
            News::Lost { loss: Loss::Silent, .. } => {
                println!("server dead");
                return Ok(ExitCode::from(2));
            }
            News::Lost { loss, back_in } => match client.fault() {
                Some(fault) => println!("lost: {loss} ({fault}); again in {back_in}"),
                None => println!("lost: {loss}; again in {back_in}"),
            },
        }
        if client.is_ended() {
            return Ok(ExitCode::FAILURE);
        }
    }
    client.bye();
    println!("bye");
    Ok(ExitCode::SUCCESS)
}
