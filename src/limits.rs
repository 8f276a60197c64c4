//! Every bound the proxy puts on what a peer can make it hold or do, each with its unit in its name.
//!
//! Owns numbers only. Never reads configuration: what an operator may change lives in [`crate::config`], and the
//! bounds here say how far such a change may go.

/// Smallest and largest `server.max_header_bytes`, in bytes.
pub const HEADER_BYTES_MIN: usize = 1024;
/// See [`HEADER_BYTES_MIN`]. A head has to fit the scratch buffer of a worker.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Largest `server.max_headers`, in fields.
pub const HEADERS_COUNT_MAX: usize = 256;
/// Longest request target that is parsed, in bytes; longer ones get 414.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Largest response head taken from a backend, in bytes.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;
/// Interim (1xx) answers taken from a backend for one request, in answers.
pub const INTERIM_COUNT_MAX: usize = 32;
/// Longest line that opens a chunk (size and extensions), in bytes.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Largest trailer section taken from a client, in bytes.
pub const REQUEST_TRAILER_BYTES_MAX: usize = 8 * 1024;
/// Largest one taken from a backend, in bytes: as its heads, as gRPC says in trailers what others say there.
pub const RESPONSE_TRAILER_BYTES_MAX: usize = RESPONSE_HEAD_BYTES_MAX;
/// Most fields of a client's trailer section, in fields.
pub const REQUEST_TRAILERS_COUNT_MAX: usize = 64;
/// Most fields of a backend's, in fields.
pub const RESPONSE_TRAILERS_COUNT_MAX: usize = HEADERS_COUNT_MAX;
/// One worker's shared read buffer, in bytes. Above 64 KiB, so that a body of that size and its head come in one read.
pub const SCRATCH_BYTES: usize = 128 * 1024;
/// Unread client bytes that a lingering close reads and drops, in bytes.
pub const LINGER_BYTES_MAX: usize = 256 * 1024;
/// How long a lingering close waits for the client's end, in milliseconds.
pub const LINGER_MS_MAX: u64 = 2_000;
/// How long the other side of a tunnel may go on after one side ended, in seconds.
pub const TUNNEL_HALF_CLOSED_SECONDS_MAX: u64 = 30;
/// Request streams of one HTTP/2 connection at once: what SETTINGS_MAX_CONCURRENT_STREAMS says, and what may be at work at
/// backends for it.
pub const HTTP2_STREAMS_COUNT_MAX: usize = 100;
/// How much a request stream's client may send before the backend takes it, in bytes: one read's worth. A sender at the
/// other end of 50 ms gets 2.5 MB/s through it.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 128 * 1024;
/// The same for all streams of a connection, in bytes. So many full streams do not hold up the others as go into it, and it
/// is what one client can make the proxy hold of its requests.
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// What may lie ready for a client that has room for it in its windows, in bytes a stream.
pub const HTTP2_SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Bytes of answers that wait in the streams of one HTTP/2 connection for their client to make room, from which on a read
/// for one of them is small.
pub const HTTP2_WAITING_BYTES_MAX: usize = 256 * 1024;
/// Such a read, in bytes: an answer's last chunk and its trailers need no room at the client, and have to get through.
pub const HTTP2_SMALL_READ_BYTES: usize = 8 * 1024;
/// Room that a client has to make within `server.write_timeout` to count as one that takes its answer, in bytes.
pub const HTTP2_PROGRESS_BYTES_MIN: usize = 4096;
/// What the frames of one HTTP/2 connection may come to in a turn of its task, in bytes; then others have theirs.
pub const HTTP2_TURN_BYTES_MAX: usize = 64 * 1024;
/// Streams that a client may open and reset before the proxy looks at them; one more ends the connection.
pub const HTTP2_PENDING_RESETS_COUNT_MAX: usize = 50;
/// Streams that may be reset for what is wrong with their frames, in a connection's life.
pub const HTTP2_ERRORS_COUNT_MAX: usize = 1000;
/// How long the place of a stream that was cut stays taken, in ticks of the wheel (100 ms).
pub const HTTP2_HELD_TICKS: u32 = 10;
/// Over which time streams that were cut are counted, in ticks of the wheel.
pub const HTTP2_WINDOW_TICKS: u32 = 100;
/// So many cuts in that time, and half of all streams, end a connection.
pub const HTTP2_CUTS_COUNT_MIN: u32 = 500;
/// Frames in a row that cost work and bring no request on (pings, settings, window updates, resets, empty or unknown ones);
/// one more ends the connection.
pub const HTTP2_IDLE_FRAMES_COUNT_MAX: u32 = 2000;
/// Payload of such a frame for which it counts as one more, in bytes: it is read into memory in whole.
pub const HTTP2_IDLE_FRAME_BYTES: usize = 1024;
/// How many more of them are borne with each tick of the wheel.
pub const HTTP2_IDLE_FRAMES_COUNT_PER_TICK: u32 = 20;
/// How many more of them are borne for each piece of an answer that goes out: what is taken, room in two windows, a ping.
pub const HTTP2_IDLE_FRAMES_COUNT_PER_PIECE: u32 = 4;
/// For so much that is sent one more of them is borne, in bytes.
pub const HTTP2_SENT_BYTES_PER_FRAME: usize = 64;
/// Bytes of the table that HPACK refers to: nobody is told another size (RFC 7541, section 4.2).
pub const HPACK_TABLE_BYTES: usize = 4096;
/// How much larger a list of fields HTTP/2's codec reads than `server.max_header_bytes` lets through, in times: so that the
/// refusal is ours, with its words, and that no section of trailers is cut short by the codec, which would not say so.
pub const HTTP2_LIST_TIMES: usize = 8;
/// How much larger than `server.max_header_bytes` a list of fields may be as it comes, in times; beyond it the connection
/// ends. By Huffman's code a byte stands for 8/5 at most.
pub const HTTP2_BLOCK_TIMES: usize = 4;
/// What the codec reads of a backend's list of fields, in bytes with 32 added a field (RFC 9113, section 6.5.2). Above what is
/// let through, as [`HTTP2_LIST_TIMES`].
pub const TRUNK_LIST_BYTES_MAX: usize = 4 * RESPONSE_HEAD_BYTES_MAX;
/// The same as it comes, in bytes; beyond it the connection ends.
pub const TRUNK_BLOCK_BYTES_MAX: usize = RESPONSE_HEAD_BYTES_MAX + RESPONSE_HEAD_BYTES_MAX / 2;
/// Largest `weight` of a backend; the smallest is 1.
pub const WEIGHT_MAX: u16 = 1000;
/// Largest file of certificates or of a private key, in bytes.
pub const TLS_FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Sessions of TLS 1.2 that clients without tickets may take up again, in sessions of the whole process.
pub const TLS_SESSIONS_COUNT_MAX: usize = 16 * 1024;
/// One of these, with the chain that the client showed, in bytes; a larger one is not kept.
pub const TLS_SESSION_BYTES_MAX: usize = 4 * 1024;
/// What is in a ticket, with the chain that the client showed, in bytes; for a larger one there is no ticket.
pub const TLS_TICKET_BYTES_MAX: usize = 8 * 1024;
/// Streams at once on one HTTP/2 connection to a backend, in streams; the backend may allow fewer.
pub const TRUNK_STREAMS_COUNT_MAX: usize = 100;
/// HTTP/2 connections of one worker to one backend, in connections; a backend that allows few streams on each gets more.
pub const TRUNKS_COUNT_MAX: usize = 256;
/// What a backend may send on one HTTP/2 stream before we took it, in bytes. Above 64 KiB, so that a body of that size
/// comes without a pause.
pub const TRUNK_STREAM_WINDOW_BYTES: usize = 128 * 1024;
/// The same over all streams of a connection, in bytes: no stream that its client reads slowly holds back another.
pub const TRUNK_WINDOW_BYTES: usize = TRUNK_STREAMS_COUNT_MAX * TRUNK_STREAM_WINDOW_BYTES;
/// Bytes of one request's body that wait in an HTTP/2 connection for the backend's socket, in bytes.
pub const TRUNK_SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Heads of answers that may come on an HTTP/2 connection to a backend, in heads: for each stream the final one and as many
/// interim ones as are taken, and the one that is too many.
pub const TRUNK_HEADS_COUNT_MAX: usize = TRUNK_STREAMS_COUNT_MAX * TRUNK_STREAM_HEADS_COUNT_MAX;
/// The same of one stream, in heads.
pub const TRUNK_STREAM_HEADS_COUNT_MAX: usize = INTERIM_COUNT_MAX + 2;
/// Frames that a backend may send while it takes nothing of what we have to say to them, in frames.
pub const TRUNK_STUCK_FRAMES_COUNT_MAX: usize = 16 * 1024;
/// How long an HTTP/2 connection to a backend may be silent while it owes answers before it is asked for a sign of life, in
/// seconds. Servers of gRPC take a PING within five minutes of the last one for an attack.
pub const TRUNK_SILENT_SECONDS_MAX: u64 = 310;
/// How long that sign of life may take, in seconds. A connection that nobody wants any more has so long for its last bytes.
pub const TRUNK_PONG_SECONDS_MAX: u64 = 20;
/// How long a request may be out on an HTTP/2 connection that nothing comes from, in seconds: whoever gives up waiting for
/// an answer behind it leaves the connection to those that are on it.
pub const TRUNK_UNHEARD_SECONDS_MAX: u64 = 1;
/// Worker threads at most.
pub const WORKERS_COUNT_MAX: usize = 1024;

const _: () = assert!(HEADER_BYTES_MIN < HEADER_BYTES_MAX);
const _: () = assert!(HEADER_BYTES_MAX <= SCRATCH_BYTES);
const _: () = assert!(RESPONSE_HEAD_BYTES_MAX <= SCRATCH_BYTES);
const _: () = assert!(HTTP2_STREAM_WINDOW_BYTES as usize <= SCRATCH_BYTES);
const _: () = assert!(HTTP2_STREAM_WINDOW_BYTES <= HTTP2_CONNECTION_WINDOW_BYTES);
const _: () = assert!(TARGET_BYTES_MAX < HEADER_BYTES_MAX);
const _: () = assert!(TRUNK_WINDOW_BYTES < 1 << 31);
// A field that is the first beyond what the codec keeps leaves more than we let through before it.
const _: () = assert!((HTTP2_LIST_TIMES - 1) * HEADER_BYTES_MIN > HTTP2_BLOCK_TIMES * HEADER_BYTES_MIN * 8 / 5 + 32);
const _: () = assert!((HTTP2_LIST_TIMES - 1) * HEADER_BYTES_MIN > HPACK_TABLE_BYTES + 32);
const _: () = assert!(TRUNK_LIST_BYTES_MAX - RESPONSE_HEAD_BYTES_MAX > TRUNK_BLOCK_BYTES_MAX * 8 / 5 + 32);
const _: () = assert!(TRUNK_STREAM_WINDOW_BYTES <= SCRATCH_BYTES);
