//! Every limit, in one place, with the reason for its value.
//!
//! What an operator should turn is in [`config`](crate::base::config), with its bounds here. What
//! nobody should turn is a constant here. The last block says how the limits hang together; an edit
//! that breaks that does not compile.

use crate::base::time::Span;

// --- what a client may say -----------------------------------------------------------------------

/// Longest client id. It stands in every event and log line.
pub const CLIENT_ID_BYTES_MAX: usize = 128;
/// Longest class name.
pub const CLASS_BYTES_MAX: usize = 64;
/// Longest name of a group of clients.
pub const GROUP_BYTES_MAX: usize = 64;
/// Longest resume token.
pub const RESUME_TOKEN_BYTES_MAX: usize = 64;
/// Longest topic of a DATA frame.
pub const TOPIC_BYTES_MAX: usize = 255;
/// Longest address in GOAWAY.
pub const ADDRESS_BYTES_MAX: usize = 255;
/// Longest explaining text in GOAWAY and ERROR.
pub const TEXT_BYTES_MAX: usize = 255;
/// Longest payload of PING and PONG.
pub const PING_BYTES_MAX: usize = 16;
/// All that a client may send before WELCOME: preface and HELLO together. What is not identified
/// gets no more memory than this.
pub const HANDSHAKE_BYTES_MAX: usize = 1_024;
/// Length of the preface.
pub const PREFACE_BYTES: usize = 8;
/// Length of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 4;
/// Longest payload of a HELLO: what is left beside the preface and its header.
pub const HELLO_PAYLOAD_BYTES_MAX: usize = HANDSHAKE_BYTES_MAX - PREFACE_BYTES - FRAME_HEADER_BYTES;
/// Largest payload that WELCOME can name: the length field has 16 bits.
pub const PAYLOAD_BYTES_LIMIT: usize = 65_535;
/// Payload that WELCOME names by default.
pub const PAYLOAD_BYTES_DEFAULT: u16 = 16 * 1_024;

// --- rhythm --------------------------------------------------------------------------------------

/// Shortest interval that can be configured at all. A client's wish is bound further by the
/// configuration.
pub const INTERVAL_MIN: Span = Span::from_millis(50);
/// Shortest interval that a client is granted by wish alone, unless configured otherwise.
pub const INTERVAL_WISH_MIN: Span = Span::from_secs(1);
/// Longest interval, configured or wished for. NAT boxes forget long before.
pub const INTERVAL_MAX: Span = Span::from_secs(60 * 60);
/// Shortest timeout: a few ticks, or every hiccup of a path were a death.
pub const TIMEOUT_MIN: Span = Span::from_millis(100);
/// Longest timeout.
pub const TIMEOUT_MAX: Span = Span::from_secs(24 * 60 * 60);
/// Shortest tick of the wheel.
pub const TICK_MIN: Span = Span::from_millis(1);
/// Longest tick of the wheel.
pub const TICK_MAX: Span = Span::from_secs(1);
/// How long beats wait for each other so that one turn serves several, unless configured otherwise.
pub const COALESCE_DEFAULT: Span = Span::from_millis(10);
/// How many times as long they wait where nothing else comes.
pub const COALESCE_STRETCH_MAX: u64 = 5;
/// Longest that they wait there, unless they are made to wait longer everywhere. Of what is not
/// answered by then (`TCP_ATO_MIN`) TCP says in a packet more that it has come.
pub const COALESCE_CALM_MAX: Span = Span::from_millis(40);
/// Longest that they can be made to wait.
pub const COALESCE_MAX: Span = Span::from_millis(100);
/// Tick of the wheel, unless configured otherwise.
pub const TICK_DEFAULT: Span = Span::from_millis(10);

/// Patience (timeout less interval) from which on a silent client is probed before the verdict.
pub const PROBE_PATIENCE_MIN: Span = Span::from_secs(10);
/// Longest time to answer a probe, unless configured otherwise.
pub const PROBE_DEFAULT_MAX: Span = Span::from_secs(5);

// --- deadlines before and after a session --------------------------------------------------------

/// From accept to a complete HELLO.
pub const HANDSHAKE_TIMEOUT: Span = Span::from_secs(10);
/// From the first byte of a frame to its last.
pub const FRAME_TIMEOUT: Span = Span::from_secs(10);
/// From our last word (GOAWAY, ERROR) to closing without the peer's help.
pub const LINGER_TIMEOUT: Span = Span::from_secs(2);
/// From SIGTERM to closing whoever is still there.
pub const DRAIN_TIMEOUT: Span = Span::from_secs(5);
/// Window within which clients are asked to come back after a drain.
pub const RECONNECT_WINDOW: (Span, Span) = (Span::from_secs(1), Span::from_secs(10));
/// From the order to drain to the first GOAWAY, unless configured otherwise: a probe a second and
/// the way of its answer.
pub const DRAIN_NOTICE: Span = Span::from_secs(2);
/// Clients that come back in a second after they were asked to leave. A larger crowd is spread over
/// more time than the reconnect window: 1,000,000 over 200 s.
pub const COME_BACKS_PER_S: u32 = 5_000;
/// What a client waits at most before its first attempt to come back.
pub const COME_BACK_BASE: Span = Span::from_secs(1);
/// What a client waits at most before any attempt to come back.
pub const COME_BACK_CAP: Span = Span::from_secs(60);
/// Before accepting again after the machine refused a descriptor or memory.
pub const ACCEPT_PAUSE: Span = Span::from_millis(100);
/// For how long the kernel keeps a newcomer to itself that says nothing. Clients speak first, and
/// who has spoken is accepted and read in one turn instead of two.
pub const ACCEPT_DEFER: Span = Span::from_secs(1);

/// From our last word to a close without the end of its send, where a layer has the last word.
pub const LAYER_LINGER: Span = Span::from_secs(2);

// --- layers --------------------------------------------------------------------------------------

/// Longest header of the PROXY protocol: addresses, and what proxies add. Version 1 has 107.
pub const PROXY_HEADER_BYTES_MAX: usize = 1_024;
/// Steps of handshakes in a turn. One costs up to half a millisecond.
pub const TURN_HANDSHAKES_MAX: usize = 16;
/// Bytes of a connection that wait for a step of its handshake, or for its move.
pub const LAYER_LATE_BYTES_MAX: usize = 2 * RECEIVE_BYTES_AT_ONCE;
/// Bytes that layers say of their own accord, as pongs, to somebody who does not read them.
pub const LAYER_ANSWERS_BYTES_MAX: usize = 64 * 1_024;
/// Longest request for a WebSocket. A browser's has some 600 bytes, and what cookies it has for the
/// host.
pub const WEBSOCKET_REQUEST_BYTES_MAX: usize = 4 * 1_024;
/// Most headers of one. A browser sends some 15, proxies add a few.
pub const WEBSOCKET_HEADERS_MAX: usize = 64;
/// Frames of a WebSocket in a row that say nothing: empty ones, and pings before WELCOME. The
/// limits on frames do not see them. A library may well end a message with an empty fragment.
pub const WEBSOCKET_EMPTY_FRAMES_MAX: u8 = 64;
/// Bytes of TLS from a peer until its handshake is done. A ClientHello with keys against quantum
/// computers has 2 KiB, a chain of certificates up to 8; who nobody knows gets no more memory.
pub const TLS_HANDSHAKE_BYTES_MAX: usize = 16 * 1_024;
/// Plaintext that TLS puts into records at once, before they are taken from it.
pub const TLS_BUFFER_BYTES_MAX: usize = 64 * 1_024;
/// Largest file with certificates or a key. A bundle of all public authorities has 230 KiB.
pub const TLS_FILE_BYTES_MAX: u64 = 1 << 20;
/// Largest file with lists of revoked certificates. Each of those has some 40 bytes: 200,000.
pub const TLS_CRL_BYTES_MAX: u64 = 8 << 20;

// --- tables --------------------------------------------------------------------------------------

/// Most connections one shard can be configured for. 24 bits of slot would do for 16 million.
pub const CONNECTIONS_LIMIT: u32 = 4 * 1_024 * 1_024;
/// Connections held, unless configured otherwise and where the machine allows as many.
pub const CONNECTIONS_DEFAULT: u32 = 1_000_000;
/// Slots beyond the configured maximum, kept for telling newcomers politely that we are full.
pub const REFUSALS_MAX: u32 = 64;
/// Slots that stay free for newcomers, whoever is held.
pub const HELD_ROOM_MIN: usize = REFUSALS_MAX as usize / 2;
/// Accept operations waiting in the kernel at once.
pub const ACCEPTS_MAX: u32 = 64;

/// Addresses and networks without connections that are remembered beside those with, in each shard
/// and only where something is limited by them: 37 bytes each.
pub const ORIGINS_IDLE_MAX: usize = 64 * 1_024;
/// Rates that newcomers share when all of those were here a moment ago: whoever has as many
/// addresses gets so many addresses' worth beside what they are.
pub const ORIGINS_SHARED: usize = 256;
/// New connections that are told in a second why they are refused unread. Each holds a slot until
/// it has heard, 2 s at most; further ones are closed at once.
pub const REFUSAL_WORDS_PER_S: u32 = 100;
/// A crowd that has to wait comes back at 4 parts of 5 of the budget of newcomers, so that those
/// who come for the first time do not send it away again.
pub const CROWD_PARTS: u64 = 4;
/// How many places of the budget 4 of the crowd take.
pub const CROWD_PLACE_PARTS: u64 = 5;
/// Longest that one of a crowd waits on top of the reconnect window. Whoever inflates a crowd keeps
/// nobody out for longer.
pub const CROWD_STRETCH_MAX: Span = Span::from_secs(5 * 60);
/// Most that a rate can be, in any unit of time: no machine hears more.
pub const RATE_LIMIT: u32 = 1_000_000_000;
/// Meters of hasty clients that are made at once: 64 KiB of neighbours.
pub const METERS_OF_PAGE: usize = 1_024;
/// Bytes of the burst that a client's bytes need beside its largest payload: a header, and beats
/// that come with it.
pub const METER_BYTES_MIN: u32 = 1_000;
/// Stalls of the loop that hasty clients are not blamed for: those since then.
pub const METER_MEMORY: Span = Span::from_secs(60);
/// For how long a client is not metered after it was not read for a while.
pub const METER_FORGIVEN: Span = Span::from_secs(5);

/// Most shards: more than that no machine has cores for. A shard's number has 8 bits beside the
/// slot in what is told outside.
pub const SHARDS_MAX: u16 = 64;
/// Slots of a shard that only connections from other shards get, so that a door full of newcomers
/// does not hold up those who are being moved.
pub const ARRIVALS_MAX: u32 = 256;
/// A shard holds its share of the connections, and this part of it more, because clients are spread
/// by a hash...
pub const SHARE_SLACK_PART: u32 = 16;
/// ...and at least so many more: eight standard deviations of a share of 16,384.
pub const SHARE_SLACK_MIN: u32 = 1_024;
/// Connections of one shard on their way to others. Further newcomers of others are refused.
pub const MOVES_MAX: usize = 1_024;
/// Connections on their way out that have an ordinary descriptor, of one shard.
pub const MOVE_DESCRIPTORS_MAX: usize = 64;
/// Places in the queue from one shard to another.
pub const MOVE_QUEUE_MAX: usize = 64;
/// Bytes that travel with a connection: a HELLO, and what a client sends without waiting for
/// WELCOME.
pub const MOVE_BYTES_MAX: usize = HANDSHAKE_BYTES_MAX + 64 * RECEIVE_BUFFER_BYTES;

/// Clients of late that are remembered: 42 bytes each.
pub const RECENT_MAX: usize = 64 * 1_024;
/// Window within which a client's comings are counted.
pub const FLAP_WINDOW: Span = Span::from_secs(10 * 60);
/// Logins of one client id that may take over before it is contested.
pub const CONTEST_FREE: u32 = 3;
/// A pause of so long ends a fight for a client id.
pub const CONTEST_WINDOW: Span = Span::from_secs(60);
/// Longest that a newcomer is asked to wait because its client id is contested.
pub const CONTEST_WAIT_MAX: Span = Span::from_secs(60);
/// Longest time for which a lost session can be held.
pub const GRACE_MAX: Span = Span::from_secs(60 * 60);
/// Groups that one client can be in. Whoever is pushed to a group looks through them.
pub const GROUPS_OF_CLIENT_MAX: usize = 32;
/// Groups of the clients of one shard.
pub const GROUPS_MAX: usize = 64 * 1_024;
/// Groups in one answer of the loop: one more than of the API, to see whether there are more.
pub const GROUPS_PAGE_MAX: usize = LIST_CLIENTS_MAX + 1;
/// Most classes that can be configured.
pub const CLASSES_MAX: usize = 64;
/// Most classes that can have had a name since the start: a session knows its own by a number of
/// one byte, of which the presets have three and no class at all has one.
pub const CLASS_NAMES_MAX: usize = 252;

// --- queues --------------------------------------------------------------------------------------

/// Bytes waiting to be sent to one client, what is in flight included. More: slow consumer.
pub const OUTBOX_BYTES_MAX: usize = 64 * 1_024;
/// What messages for one client may cost while they wait or are not acknowledged, unless configured
/// otherwise: each its bytes, and so much more for the place it takes.
pub const QUEUE_BYTES_DEFAULT: usize = 256 * 1_024;
/// What a message costs beside its bytes.
pub const LETTER_BYTES: usize = 64;
/// How long an ACK that may have come while a client was not read is waited for at least when it is
/// read on: until what is in its socket has been read.
pub const ACK_WAIT_MIN: Span = Span::from_secs(1);
/// Largest value for what messages for one client may cost.
pub const QUEUE_BYTES_LIMIT: usize = 16 * 1_024 * 1_024;
/// For how long a message may wait, unless configured or said otherwise.
pub const QUEUE_TTL_DEFAULT: Span = Span::from_secs(5 * 60);
/// Shortest value for it: less than a round trip across the world were none.
pub const QUEUE_TTL_MIN: Span = Span::from_millis(100);
/// Longest that a message may wait.
pub const QUEUE_TTL_MAX: Span = Span::from_secs(24 * 60 * 60);
/// Places for messages that a client's empty queue keeps.
pub const LETTERS_KEPT_MAX: usize = 64;
/// Dropped messages of one client whose numbers are remembered, for whoever asks what became of
/// them.
pub const LOST_KEPT_MAX: usize = 64;
/// Send buffers kept for reuse; further ones are given back to the allocator.
pub const CHUNKS_KEPT_MAX: usize = 4_096;
/// A send buffer that grew beyond this is not kept.
pub const CHUNK_BYTES_KEPT_MAX: usize = 1_024;
/// Events not yet taken by the side thread before newcomers are refused. Every session that is
/// online has room for its OFFLINE on top, so no event is ever lost.
pub const EVENTS_WAITING_MAX: usize = 64 * 1_024;
/// Transport events not yet taken by the side thread. Further ones are counted and dropped.
pub const TRANSPORT_WAITING_MAX: usize = 16 * 1_024;
/// Transport events that wait to be written. Further ones are counted and dropped.
pub const TRANSPORT_UNWRITTEN_MAX: usize = 16 * 1_024;
/// Slots of the queue to the side thread that transport events leave to the ledger.
pub const TRANSPORT_ROOM_LEFT: usize = EVENT_QUEUE_MAX / 2;
/// Slots of the queue of events between loop and side thread: as many as the loop hands over in one
/// turn. What is more waits in the ledger, whose memory is given back when it is empty.
pub const EVENT_QUEUE_MAX: usize = TURN_EVENTS_MAX;
/// Events taken by the side thread and not yet written, because the file or the pipe does not take
/// them. At this many it takes no more, and the loop notices by [`EVENTS_WAITING_MAX`].
pub const EVENTS_UNWRITTEN_MAX: usize = 64 * 1_024;
/// Events that the side thread takes from the queue at once.
pub const EVENTS_TAKEN_MAX: usize = 1_024;
/// How long the side thread lets events gather where they come more densely than that: to be woken
/// for each costs more than the event.
pub const EVENTS_GATHER: Span = Span::from_millis(3);
/// Events that gather at most.
pub const EVENTS_GATHERED_MAX: usize = EVENT_QUEUE_MAX / 2;
/// Longest that an event waits in the side thread while more keep coming, and how long it waits
/// before it tries again to write what was refused.
pub const EVENTS_FLUSH: Span = Span::from_millis(100);
/// Longest that the side thread waits for a reader of events who does not take them, before it
/// looks after whatever else came.
pub const EVENTS_OUTLET_PATIENCE: Span = Span::from_millis(5);
/// Lines of the log that wait to be written. Further ones are counted and dropped: the log must not
/// hold up the loop.
pub const LOG_LINES_WAITING_MAX: usize = 8 * 1_024;
/// Causes that the log's limiter tells apart.
pub const LOG_CAUSES_MAX: usize = 64;
/// Events in one client's history, unless whoever asks says otherwise.
pub const HISTORY_EVENTS_DEFAULT: usize = 20;
/// The most that may be asked for.
pub const HISTORY_EVENTS_MAX: usize = 1_000;
/// Bytes of the journal that are read for one client's history, the newest first.
pub const HISTORY_BYTES_MAX: u64 = 256 * 1_024 * 1_024;
/// Connections whose round trip was measured lately, or is being measured.
pub const MEASURES_MAX: usize = 64;
/// For how long the round trip that was measured is that of now.
pub const MEASURE_AGE_MAX: Span = Span::from_secs(2);
/// How often whoever had a round trip measured asks for it at most.
pub const MEASURE_ASKS_MAX: usize = 8;
/// Between two such questions.
pub const MEASURE_PAUSE: Span = Span::from_millis(2);
/// Between two lines of the log with the same cause.
pub const LOG_PAUSE: Span = Span::from_secs(1);
/// Bytes of DATA that are handed up and not taken yet, of all clients together, unless configured
/// otherwise. Clients that have more of them than is left over are not read until there is more.
pub const UP_BYTES_DEFAULT: usize = 8 * 1_024 * 1_024;
/// Least that a loop can have of them: a few of the largest frames.
pub const UP_BYTES_MIN: usize = 4 * PAYLOAD_BYTES_LIMIT;
/// Most that can be configured.
pub const UP_BYTES_LIMIT: usize = 4 * 1_024 * 1_024 * 1_024;
/// What a loop keeps at most on top of twice that, before whoever sends more is sent away: what had
/// been received of clients before the kernel stopped reading them, two turns' worth of a ring.
pub const UP_OVERSHOOT_BYTES: usize = 2 * RECEIVE_BUFFERS as usize * RECEIVE_BUFFER_BYTES;
/// What a DATA frame counts for beside its topic and body: about what it costs to keep.
pub const DATA_CHARGE_BYTES: usize = 256;
/// Slots of the queues of DATA from a loop, and of credit to it. What is more waits where it is.
pub const DATA_QUEUE_MAX: usize = 4_096;
/// Bytes of DATA that were taken and are kept for followers who come back.
pub const DATA_RECENT_BYTES_MAX: usize = 4 * 1_024 * 1_024;
/// Messages that a follower is handed at once, and their bytes, but for one that is longer.
pub const DATA_BATCH_MAX: usize = 128;
/// The bytes of those.
pub const DATA_BATCH_BYTES_MAX: usize = 64 * 1_024;
/// Clients of one push.
pub const PUSH_CLIENTS_MAX: usize = 256;
/// Broadcasts under way at once.
pub const BROADCASTS_RUNNING_MAX: usize = 8;
/// Broadcasts that are over and remembered, for whoever asks how they went.
pub const BROADCASTS_KEPT_MAX: usize = 64;
/// Clients that did not get a broadcast and are named.
pub const BROADCAST_OTHERS_MAX: usize = 100;
/// Clients that get a broadcast in a second, of all shards together, unless configured or said
/// otherwise.
pub const BROADCAST_PER_SECOND_DEFAULT: u32 = 20_000;
/// Most that can be configured: no machine sends more.
pub const BROADCAST_PER_SECOND_LIMIT: u32 = 10_000_000;
/// How long a broadcast gathers clients between two turns. It may catch up twice as much when it
/// did not get its turn.
pub const BROADCAST_WINDOW: Span = Span::from_millis(10);
/// Slots of the queue of commands to the loop, and of replies from it.
pub const COMMAND_QUEUE_MAX: usize = 1_024;

/// Longest that the end of the program waits for the last events to be written.
pub const SIDE_PATIENCE: Span = Span::from_secs(5);

// --- the journal ---------------------------------------------------------------------------------

/// Bytes of records in a segment of the journal before the next one is begun, unless configured
/// otherwise. A segment has a snapshot besides, and goes on for as many bytes as that has, so that
/// snapshots are never more than half of what is written.
pub const JOURNAL_SEGMENT_BYTES_DEFAULT: u32 = 64 * 1_024 * 1_024;
/// Smallest segment: room for a few records at least.
pub const JOURNAL_SEGMENT_BYTES_MIN: u32 = 4 * 1_024;
/// Largest segment: one that is read through in seconds.
pub const JOURNAL_SEGMENT_BYTES_LIMIT: u32 = 1_024 * 1_024 * 1_024;
/// Bytes of the journal that are kept, unless configured otherwise.
pub const JOURNAL_RETAIN_BYTES_DEFAULT: u64 = 1_024 * 1_024 * 1_024;
/// Most bytes that can be kept.
pub const JOURNAL_RETAIN_BYTES_LIMIT: u64 = 1 << 50;
/// At least so many segments have room in what is kept, or a reader would hardly keep up.
pub const JOURNAL_RETAIN_SEGMENTS_MIN: u64 = 4;
/// Most segments kept, however small: a folder is listed by every reader.
pub const JOURNAL_SEGMENTS_MAX: usize = 4_096;
/// Longest line of the journal: longer ones are damage.
pub const JOURNAL_LINE_BYTES_MAX: usize = 8 * 1_024;
/// What was written is on the disk after so long.
pub const JOURNAL_SYNC: Span = Span::from_secs(1);
/// How long the loop has to say who is online, before a segment begins without a snapshot.
pub const JOURNAL_SNAPSHOT_PATIENCE: Span = Span::from_secs(30);
/// Between two looks of a reader who follows a journal.
pub const JOURNAL_FOLLOW_PAUSE: Span = Span::from_millis(100);
/// Slots looked at for one page of who is online.
pub const CLIENTS_PAGE_MAX: u32 = 1_024;

// --- the control plane ---------------------------------------------------------------------------

/// Longest that anybody outside waits for the loop's answer.
pub const ASK_PATIENCE: Span = Span::from_secs(5);
/// Connections to the admin API at once. Each is a file, and they are within what the machine's
/// plan leaves to the rest of the process.
pub const HTTP_CONNECTIONS_MAX: usize = 64;
/// Those of one address that is not this machine's own: whoever has them all leaves as many to
/// others, and a proxy elsewhere, or a monitor that opens one for each question, still has enough.
pub const HTTP_ADDRESS_CONNECTIONS_MAX: usize = 32;
/// From the first to the last byte of a request's head, and from one request to the next.
pub const HTTP_HEAD_PATIENCE: Span = Span::from_secs(5);
/// From the first to the last byte of a TLS handshake.
pub const HTTP_HANDSHAKE_PATIENCE: Span = Span::from_secs(5);
/// For the rest of a request.
pub const HTTP_BODY_PATIENCE: Span = Span::from_secs(5);
/// Longest that an answer waits because the other end takes no byte of it.
pub const HTTP_WRITE_PATIENCE: Span = Span::from_secs(10);
/// What the kernel may hold of what an admin connection was sent. It reports room when a third of
/// this has gone, which even a slow reader must get done within the patience above.
pub const HTTP_SEND_BUFFER_BYTES: usize = 64 * 1_024;
/// Largest body of a request: a message with the largest payload in base64, and whom it is for.
pub const HTTP_BODY_BYTES_MAX: usize = 128 * 1_024;
/// Bytes of a request's head, and of an answer that waits to be written.
pub const HTTP_BUFFER_BYTES: usize = 16 * 1_024;
/// Most header lines of a request.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Bytes of a piece of a long answer.
pub const HTTP_PIECE_BYTES: usize = 32 * 1_024;
/// Pieces of a long answer that are ready before they are wanted.
pub const HTTP_PIECES_WAITING_MAX: usize = 2;
/// For the last words to whoever follows, at the end of the program.
pub const HTTP_END_PATIENCE: Span = Span::from_secs(1);
/// Threads that read the journal for whoever follows from far back.
pub const HTTP_READERS_MAX: usize = 4;

/// Events kept in memory for whoever follows and was away for a moment.
pub const FEED_RECENT_MAX: usize = 16 * 1_024;
/// Transport events kept in memory for whoever follows.
pub const FEED_TRANSPORT_RECENT_MAX: usize = 4 * 1_024;
/// Those who follow, at once.
pub const FEED_FOLLOWERS_MAX: usize = 32;
/// Events handed to one follower at once.
pub const FEED_BATCH_MAX: usize = 128;
/// Silence after which a follower hears that the feed is alive.
pub const FEED_HEARTBEAT: Span = Span::from_secs(15);
/// Samples of how things were, about one a second: a quarter of an hour, in some 250 KiB.
pub const PAST_SAMPLES_MAX: usize = 900;
/// Shortest time between two samples: a little less than between two reports of a loop.
pub const PAST_STEP_MIN: Span = Span::from_millis(900);

/// Most targets of webhooks.
pub const WEBHOOKS_MAX: usize = 16;
/// Longest name of one. It is part of a file's name.
pub const WEBHOOK_NAME_BYTES_MAX: usize = 64;
/// Longest URL of one.
pub const WEBHOOK_URL_BYTES_MAX: usize = 2_048;
/// Most topics of one.
pub const WEBHOOK_TOPICS_MAX: usize = 64;
/// Entries of a batch, unless configured otherwise.
pub const WEBHOOK_BATCH_DEFAULT: usize = 128;
/// Most entries of a batch.
pub const WEBHOOK_BATCH_MAX: usize = 4_096;
/// A batch that has so many bytes takes no more entries.
pub const WEBHOOK_BODY_BYTES_MAX: usize = 1_024 * 1_024;
/// How long a batch gathers, unless configured otherwise.
pub const WEBHOOK_WAIT_DEFAULT: Span = Span::from_millis(100);
/// Longest that a batch can be made to gather.
pub const WEBHOOK_WAIT_MAX: Span = Span::from_secs(60);
/// How long a target has to answer, unless configured otherwise.
pub const WEBHOOK_TIMEOUT_DEFAULT: Span = Span::from_secs(10);
/// Shortest time to answer: a round trip with TLS across the world.
pub const WEBHOOK_TIMEOUT_MIN: Span = Span::from_millis(100);
/// Longest time to answer.
pub const WEBHOOK_TIMEOUT_MAX: Span = Span::from_secs(5 * 60);
/// Bound of the pause after the first failure. It doubles with each further one.
pub const WEBHOOK_RETRY_BASE: Span = Span::from_millis(250);
/// Longest pause between two attempts, unless configured otherwise.
pub const WEBHOOK_RETRY_DEFAULT: Span = Span::from_secs(30);
/// Longest that this pause can be made.
pub const WEBHOOK_RETRY_MAX: Span = Span::from_secs(60 * 60);
/// Bytes of an answer's body that are read, and forgotten, so that the connection can be kept.
pub const WEBHOOK_ANSWER_BYTES_MAX: usize = 16 * 1_024;
/// Longest that they are waited for: the batch is taken already.
pub const WEBHOOK_ANSWER_PATIENCE: Span = Span::from_secs(1);
/// Between two lines of the log about a target that fails.
pub const WEBHOOK_LOG_PAUSE: Span = Span::from_secs(60);
/// Threads that look up names and read and write files for webhooks.
pub const WEBHOOK_BLOCKING_MAX: usize = 8;
/// At the end of the program, for targets to take the last events.
pub const WEBHOOK_END_PATIENCE: Span = Span::from_secs(3);
/// Shortest key of a signature: fewer bytes could be guessed.
pub const WEBHOOK_SECRET_BYTES_MIN: usize = 16;
/// Longest key of a signature.
pub const WEBHOOK_SECRET_BYTES_MAX: usize = 1_024;
/// Largest file of authorities.
pub const WEBHOOK_CA_BYTES_MAX: u64 = 1_024 * 1_024;

/// Longest that whoever pushes is let wait for what becomes of it.
pub const PUSH_WAIT_MAX: Span = Span::from_secs(20);
/// How long whoever pushes to a client that is here waits to hear that it was handed over, unless
/// asked for otherwise. It hardly ever takes so long.
pub const PUSH_WAIT_DEFAULT: Span = Span::from_millis(200);
/// Between two looks at what became of a push: so short at first, and twice as long each time, up
/// to...
pub const PUSH_LOOK_MIN: Span = Span::from_millis(1);
/// ...so long.
pub const PUSH_LOOK_MAX: Span = Span::from_millis(64);
/// Clients in one answer, unless asked for otherwise.
pub const LIST_CLIENTS_DEFAULT: usize = 100;
/// Most clients in one answer.
pub const LIST_CLIENTS_MAX: usize = 1_000;
/// Questions to the loop for one answer; a filter that lets few through ends early and says where
/// to go on.
pub const LIST_QUESTIONS_MAX: usize = 64;
/// How often a snapshot is begun anew when too much happens meanwhile.
pub const SNAPSHOT_ATTEMPTS_MAX: usize = 3;
/// A loop that has said nothing for so long does not turn.
pub const HEALTH_REPORT_AGE_MAX: Span = Span::from_secs(5);
/// Shortest token or key by which clients prove their ids: fewer bytes could be guessed.
pub const IDENTITY_SECRET_BYTES_MIN: usize = 16;
/// Longest: a HELLO has room for it beside a long client id.
pub const IDENTITY_SECRET_BYTES_MAX: usize = 512;
/// Clients that have a token of their own in a file, about 100 bytes each in memory.
pub const IDENTITY_CLIENTS_MAX: usize = 100_000;
/// Bytes of the file with tokens or keys.
pub const IDENTITY_FILE_BYTES_MAX: u64 = 64 * 1_024 * 1_024;
/// Keys with which tokens may be made: each costs a microsecond for every HELLO.
pub const IDENTITY_KEYS_MAX: usize = 4;
/// Tokens of one shard's clients that somebody looks at off the loop. Further ones are refused as
/// busy: whoever looks is slower than clients come.
pub const CHECKS_MAX: usize = 1_024;
/// Clients in a second that are asked to come back when nobody could look at their tokens, where no
/// `newcomer-rate` says another: whoever looks at them should not meet all of them at once when it
/// is there again.
pub const CHECKS_AGAIN_PER_S: u32 = 1_000;
/// What a client may say before its token is looked at, HELLO included: as for one that is moved.
pub const CHECK_BYTES_MAX: usize = MOVE_BYTES_MAX;
/// Tokens of one shard that are looked at before another shard has its turn, and answers that a
/// loop takes in a turn.
pub const CHECK_BATCH_MAX: usize = 64;
/// Requests to the hook that are under way at once, each on a connection of its own, which is kept:
/// beside those of the admin API they find descriptors in the reserve. At 10 ms each they are 3,200
/// clients in a second.
pub const HOOK_REQUESTS_MAX: usize = 32;
/// Tokens of all shards that wait for such a request: what 32 at once do in 320 ms at 10 ms each,
/// and in the default timeout at 90 ms each. A slower hook could not get at more of them in time.
pub const HOOK_WAITING_MAX: usize = 1_024;
/// How long a connection to the hook that nothing was said on is trusted: below what firewalls and
/// balancers keep of one.
pub const HOOK_IDLE_MAX: Span = Span::from_secs(30);
/// For the body of its answer, which nobody looks at: behind it the connection is good for another
/// question, and until then who asked waits.
pub const HOOK_BODY_PATIENCE: Span = Span::from_millis(100);
/// How long a check by the hook takes at most, its wait for a request included.
pub const HOOK_TIMEOUT_DEFAULT: Span = Span::from_secs(3);
/// Shortest: a connection over a continent takes that long.
pub const HOOK_TIMEOUT_MIN: Span = Span::from_millis(100);
/// Longest. A HELLO waits for it, and what comes behind it is in memory.
pub const HOOK_TIMEOUT_MAX: Span = Span::from_secs(60);
/// Proofs by the hook that are kept, about 150 bytes each.
pub const HOOK_CACHE_DEFAULT: u32 = 100_000;
/// Most that may be kept.
pub const HOOK_CACHE_MAX: u32 = 10_000_000;
/// How long each is kept: a client that was shut out comes back in for so long at most, and a
/// network that flaps asks once.
pub const HOOK_CACHE_AGE_DEFAULT: Span = Span::from_secs(60);
/// Longest.
pub const HOOK_CACHE_AGE_MAX: Span = Span::from_secs(24 * 60 * 60);
/// Bytes of the key of a JWT that is signed by HS256: RFC 7518 wants as many as the hash has.
pub const JWT_SECRET_BYTES_MIN: usize = 32;
/// Keys of a JWKS: a token that names none is tried with each.
pub const JWT_KEYS_MAX: usize = 16;
/// Seconds for which clocks may differ between whoever makes a JWT and whoever looks at it.
pub const JWT_LEEWAY_S: u64 = 5;
/// Longest that a token made here can hold.
pub const IDENTITY_TOKEN_LIFE_MAX: Span = Span::from_secs(10 * 366 * 24 * 60 * 60);
/// Shortest token of the admin API: fewer bytes could be guessed.
pub const ADMIN_TOKEN_BYTES_MIN: usize = 16;
/// Longest token of the admin API.
pub const ADMIN_TOKEN_BYTES_MAX: usize = 1_024;
/// Most tokens of the admin API: each is compared with whatever somebody says.
pub const ADMIN_TOKENS_MAX: usize = 32;
/// Largest file of them: every one as long as it may be, and its role.
pub const ADMIN_TOKEN_FILE_BYTES_MAX: u64 = 36 * 1_024;
/// Longest origin of pages that may come in: a name of 253 bytes, a scheme and a port.
pub const ORIGIN_BYTES_MAX: usize = 272;
/// Most such origins: each is compared with what a browser says.
pub const ADMIN_ORIGINS_MAX: usize = 16;
/// Largest file of a certificate or a key of the admin API: a long chain in PEM.
pub const ADMIN_TLS_BYTES_MAX: u64 = 256 * 1_024;

// --- work in one turn ----------------------------------------------------------------------------

/// Completions handled in one turn, and after so many time advances although more has arrived than
/// could be handled. Until then nobody is judged.
pub const TURN_COMPLETIONS_MAX: usize = 65_536;
/// Completions taken from the ring at once, between two looks at operations.
pub const REAP_BATCH_MAX: usize = 1_024;
/// Clients handed out by the wheel in one call.
pub const EXPIRE_BATCH_MAX: usize = 1_024;
/// Blocks of the wheel visited in one call.
pub const WHEEL_VISITS_MAX: usize = 4_096;
/// Slots looked at in one turn of a drain or a rebalance, and clients told GOAWAY.
pub const DRAIN_BATCH_MAX: u32 = 1_024;
/// Connections taken in from other shards in one turn.
pub const TURN_ARRIVALS_MAX: usize = 1_024;
/// Clients whose queue is looked at in one turn, for messages that are too old.
pub const SWEEP_BATCH_MAX: usize = 256;
/// Messages looked at in one turn for that, beside those of the last client.
pub const SWEEP_LETTERS_MAX: usize = 8 * 1_024;
/// Clients that get a broadcast in one turn: about a millisecond's work.
pub const TURN_BROADCAST_MAX: u32 = 256;
/// Slots looked at in one turn for clients that get a broadcast.
pub const TURN_BROADCAST_SLOTS_MAX: u32 = 4_096;
/// Commands taken in one turn. A push to several clients counts as so many.
pub const TURN_COMMANDS_MAX: usize = 256;
/// Credits taken in one turn.
pub const TURN_CREDITS_MAX: usize = 4_096;
/// Clients that are read again in one turn.
pub const TURN_RESUMES_MAX: usize = 64;
/// Events handed to the side thread in one turn.
pub const TURN_EVENTS_MAX: usize = 4_096;
/// Standing still for so long beyond a sleep is a stall, and is credited to every client.
pub const STALL_THRESHOLD: Span = Span::from_millis(500);
/// Stalls remembered, for dating what was before them.
pub const STALLS_KEPT_MAX: usize = 16;
/// Longest sleep of the loop, so that dates and counters never grow old.
pub const SLEEP_MAX: Span = Span::from_secs(1);

// --- the ring ------------------------------------------------------------------------------------

/// Entries of a submission queue.
pub const RING_SQ_ENTRIES: u32 = 1_024;
/// Entries of the completion queue when there is one ring.
pub const RING_CQ_ENTRIES: u32 = 16_384;
/// Entries of each completion queue when there are many rings.
pub const RING_CQ_ENTRIES_MANY: u32 = 8_192;
/// Receive buffers when there is one ring.
pub const RECEIVE_BUFFERS: u16 = 8_192;
/// Receive buffers of each ring when there are many.
pub const RECEIVE_BUFFERS_MANY: u16 = 1_024;
/// Bytes of a receive buffer. A beat has 4 to 20; a longer frame arrives in pieces.
pub const RECEIVE_BUFFER_BYTES: usize = 256;
/// Where there is no ring: bytes taken from a connection before it is another's turn. The buffer
/// for them is the only one.
pub const RECEIVE_BYTES_AT_ONCE: usize = 16 * 1_024;
/// Where there is no ring: sockets with news that are heard of at once.
pub const EPOLL_EVENTS_MAX: usize = 1_024;
/// Most rings one thread looks after.
pub const RINGS_MAX: usize = 256;
/// Connections that may wait to be accepted; the kernel's `somaxconn` bounds it further.
pub const BACKLOG_MAX: i32 = 4_096;

// --- what an operator may say --------------------------------------------------------------------

/// Longest of the deadlines before and after a session. Longer ones would never be met by anybody.
pub const DEADLINE_MAX: Span = Span::from_secs(60 * 60);
/// Shortest handshake and frame deadline: less than a round trip across the world were a wall.
pub const DEADLINE_MIN: Span = Span::from_millis(100);
/// Smallest value for the largest payload: the frames of the protocol itself must fit.
pub const PAYLOAD_BYTES_MIN: u16 = 512;
/// Largest value for the bytes that may wait for one client.
pub const OUTBOX_BYTES_LIMIT: usize = 16 * 1_024 * 1_024;
/// Longest silence before a keep-alive probe, and between two: the kernel's `MAX_TCP_KEEPIDLE`.
pub const KEEPALIVE_SECS_MAX: u64 = 32_767;
/// Most keep-alive probes: the kernel's `MAX_TCP_KEEPCNT`.
pub const KEEPALIVE_COUNT_MAX: u32 = 127;
/// Unanswered keep-alive probes before TCP gives up, unless configured otherwise.
pub const KEEPALIVE_COUNT_DEFAULT: u32 = 3;
/// Longest name of a node. It stands in every event.
pub const NODE_BYTES_MAX: usize = 64;
/// Largest file of keys that is read.
pub const CONFIG_BYTES_MAX: u64 = 1_024 * 1_024;
/// Most mistakes of a configuration that are told one by one.
pub const CONFIG_MISTAKES_MAX: usize = 64;

// --- the load bench ------------------------------------------------------------------------------

/// Messages of a pretend client that are not acknowledged, at most; further ones are left out.
pub const LOAD_UNACKED_MAX: usize = 64;
/// Bytes of a message of a pretend client, where nothing else was asked for.
pub const LOAD_TALK_BYTES_DEFAULT: u16 = 64;
/// Bytes of a message of a pretend client, at most: with its topic and head it is a frame.
pub const LOAD_TALK_BYTES_MAX: u16 = 60_000;
/// Pretend clients of one process.
pub const LOAD_CLIENTS_MAX: u32 = 1_000_000;
/// Pretend clients of one source address. Towards one server it has about 28,000 ports, of which
/// the kernel tries one half first; when that half is used up, every connect walks through all of
/// it.
pub const LOAD_CLIENTS_PER_SOURCE: u32 = 4_000;
/// Pretend clients connecting at once. More would overflow the server's backlog, and a SYN that is
/// dropped there comes again a second later.
pub const LOAD_CONNECTS_MAX: u32 = 512;
/// How many connect in a second where no rate is given, to judge whether a run is long enough.
pub const LOAD_CONNECTS_PER_S_GUESS: u32 = 2_000;
/// Alarms of pretend clients taken in one turn.
pub const LOAD_ALARMS_MAX: usize = 4_096;
/// From the last verdict that is due to the end of the run.
pub const LOAD_VERDICT_MARGIN: Span = Span::from_secs(1);
/// After the end of the run, for the answers to the last beats.
pub const LOAD_SETTLE_MAX: Span = Span::from_secs(1);
/// After that, for saying goodbye and closing.
pub const LOAD_LEAVE_MAX: Span = Span::from_secs(5);

// how the limits hang together; a wrong edit above does not compile
const _: () = {
    // A HELLO with every field at its longest still leaves room for a token of 512 bytes.
    let hello_without_token =
        4 + 1 + CLIENT_ID_BYTES_MAX + 1 + CLASS_BYTES_MAX + 2 + 1 + RESUME_TOKEN_BYTES_MAX + 4 + 5;
    assert!(PREFACE_BYTES + FRAME_HEADER_BYTES + hello_without_token + 512 <= HANDSHAKE_BYTES_MAX);
    assert!(CLIENT_ID_BYTES_MAX <= u8::MAX as usize); // length fields of one byte
    assert!(TOPIC_BYTES_MAX <= u8::MAX as usize);
    assert!(TEXT_BYTES_MAX <= u8::MAX as usize);
    assert!(ADDRESS_BYTES_MAX <= u8::MAX as usize);
    assert!(PAYLOAD_BYTES_DEFAULT as usize <= PAYLOAD_BYTES_LIMIT);
    // The largest frame fits into an empty outbox, beside the answer to a PING.
    assert!(
        OUTBOX_BYTES_MAX
            >= FRAME_HEADER_BYTES * 2 + PAYLOAD_BYTES_DEFAULT as usize + PING_BYTES_MAX
    );
    // GOAWAY and ERROR with the longest text, DATA with the longest topic: each well below half.
    assert!(PAYLOAD_BYTES_MIN as usize >= 2 * TEXT_BYTES_MAX);
    assert!(PAYLOAD_BYTES_MIN as usize >= 2 * TOPIC_BYTES_MAX);
    assert!(OUTBOX_BYTES_MAX <= OUTBOX_BYTES_LIMIT);
    // The largest message fits into an empty queue, whatever the largest payload is.
    assert!(QUEUE_BYTES_DEFAULT >= PAYLOAD_BYTES_LIMIT + LETTER_BYTES);
    assert!(QUEUE_BYTES_DEFAULT <= QUEUE_BYTES_LIMIT);
    assert!(PUSH_CLIENTS_MAX <= TURN_COMMANDS_MAX);
    // What JSON needs for a client id, quotes and a comma included; and base64 is a third longer.
    assert!(
        HTTP_BODY_BYTES_MAX
            >= PUSH_CLIENTS_MAX * (CLIENT_ID_BYTES_MAX + 3) + PAYLOAD_BYTES_LIMIT * 4 / 3 + 1_024
    );
    assert!(HANDSHAKE_TIMEOUT.as_nanos() <= DEADLINE_MAX.as_nanos());
    assert!(HOOK_TIMEOUT_DEFAULT.as_nanos() < HANDSHAKE_TIMEOUT.as_nanos());
    assert!(FRAME_TIMEOUT.as_nanos() <= DEADLINE_MAX.as_nanos());
    assert!(DRAIN_TIMEOUT.as_nanos() <= DEADLINE_MAX.as_nanos());
    assert!(DRAIN_NOTICE.as_nanos() <= DRAIN_TIMEOUT.as_nanos() / 2);
    assert!(INTERVAL_MIN.as_nanos() <= INTERVAL_WISH_MIN.as_nanos());
    assert!(INTERVAL_MAX.as_nanos() < TIMEOUT_MAX.as_nanos());
    assert!(INTERVAL_MIN.as_nanos() < TIMEOUT_MIN.as_nanos());
    assert!(CONNECTIONS_DEFAULT <= CONNECTIONS_LIMIT);
    assert!(CONNECTIONS_LIMIT as u64 + (REFUSALS_MAX as u64) < 1 << 24); // slot bits of a token
    assert!(CONNECTIONS_LIMIT as u64 + ((REFUSALS_MAX + ARRIVALS_MAX) as u64) < 1 << 24);
    assert!(UP_BYTES_MIN > DATA_CHARGE_BYTES + PAYLOAD_BYTES_LIMIT); // the largest frame fits
    assert!(UP_BYTES_DEFAULT >= UP_BYTES_MIN && UP_BYTES_DEFAULT <= UP_BYTES_LIMIT);
    assert!(SHARDS_MAX <= 1 << 8); // a shard and a slot are one number of 32 bits outside
    assert!(MOVE_BYTES_MAX >= HANDSHAKE_BYTES_MAX + RECEIVE_BUFFER_BYTES);
    assert!(RING_CQ_ENTRIES >= 2 * RING_SQ_ENTRIES);
    assert!(RECEIVE_BUFFERS.is_power_of_two());
    assert!(RECEIVE_BYTES_AT_ONCE.is_multiple_of(RECEIVE_BUFFER_BYTES));
    assert!(RECEIVE_BUFFERS_MANY.is_power_of_two());
    assert!(LOAD_CLIENTS_MAX <= CONNECTIONS_LIMIT);
    // A client id of quotes is twice as long in a line.
    assert!(JOURNAL_LINE_BYTES_MAX >= 2 * CLIENT_ID_BYTES_MAX + 2 * NODE_BYTES_MAX + 1_024);
    assert!(
        JOURNAL_SEGMENT_BYTES_LIMIT as u64 * JOURNAL_RETAIN_SEGMENTS_MIN
            <= JOURNAL_RETAIN_BYTES_LIMIT
    );
    assert!(
        JOURNAL_SEGMENT_BYTES_DEFAULT as u64 * JOURNAL_RETAIN_SEGMENTS_MIN
            <= JOURNAL_RETAIN_BYTES_DEFAULT
    );
    assert!(CLIENTS_PAGE_MAX as usize >= LIST_CLIENTS_MAX);
    assert!(FEED_RECENT_MAX >= 2 * TURN_EVENTS_MAX); // a turn's events do not push out the last
    assert!(HTTP_ADDRESS_CONNECTIONS_MAX <= HTTP_CONNECTIONS_MAX / 2);
    assert!(HTTP_CONNECTIONS_MAX > FEED_FOLLOWERS_MAX); // whoever asks finds room beside them
    assert!(HTTP_BUFFER_BYTES >= 8_192); // what hyper needs at least
    assert!(CLASSES_MAX < 128); // with the presets, one byte of a session
    assert!(EVENTS_TAKEN_MAX < EVENTS_UNWRITTEN_MAX / 2);
    assert!(EVENTS_GATHER.as_nanos() < TICK_DEFAULT.as_nanos());
    // Transport events are many before there is no room for more.
    assert!(EVENTS_GATHERED_MAX <= EVENT_QUEUE_MAX - TRANSPORT_ROOM_LEFT);
    assert!(COALESCE_DEFAULT.as_nanos() <= COALESCE_CALM_MAX.as_nanos());
    assert!(COALESCE_CALM_MAX.as_nanos() <= COALESCE_MAX.as_nanos());
    assert!(LOAD_CLIENTS_MAX / LOAD_CLIENTS_PER_SOURCE < 255); // one byte of 127.x.y.z
    assert!((LOAD_CONNECTS_MAX as i32) < BACKLOG_MAX);
};
