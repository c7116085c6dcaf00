//! The attacks that a server is put under, each with bounded numbers and for a bounded time. It knows no server and no protocol.

use std::time::Duration;

/// What attackers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Nothing: what the honest clients get alone.
    None,
    /// Nobody reads the log.
    StalledLog,
    /// Requests with paths of 60 KB that are answered 401 and 404, as fast as they go.
    Refusals,
    /// HTTP/2 connections that ask for nothing and answer pings.
    IdleHttp2,
    /// Requests over HTTP/1 whose responses are not read.
    UnreadHttp1,
    /// Requests over HTTP/2 whose streams have no window.
    UnreadHttp2,
    /// Uploads without a token over many streams, in frames of one byte.
    ByteFrames,
    /// The first half of a ClientHello.
    HalfHellos,
    /// With a token: uploads that are begun and not continued, as many as a connection may have.
    OpenStreams,
    /// Connections that send nothing.
    Silent,
    /// Frames of HTTP/2 that carry nothing, as fast as they go.
    Flood(Flood),
    /// With a token: uploads in HTTP/1 chunks of one byte, as fast as they go.
    ByteChunks,
    /// With a token: uploads of gRPC messages without content, as fast as they go.
    EmptyMessages,
    /// With a token: uploads that declare up to 5 GiB and send next to nothing.
    Declared,
}

/// The frames of a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// PRIORITY.
    Priority,
    /// WINDOW_UPDATE.
    Window,
    /// SETTINGS.
    Settings,
    /// PING.
    Ping,
    /// Of a type that nobody knows.
    Unknown,
}

/// An attack beside honest clients.
#[derive(Clone, Copy, Debug)]
pub struct Hostile {
    /// What attackers do.
    pub attack: Attack,
    /// Over how many connections at once. One that is closed is opened again.
    pub connections: usize,
    /// For how long.
    pub time: Duration,
    /// How long the server is left alone afterwards, before its memory is read.
    pub rest: Duration,
}

impl Hostile {
    /// Whether the ports speak TLS.
    pub fn over_tls(&self) -> bool {
        self.attack == Attack::HalfHellos
    }

    /// Whether the log is written to a pipe, whose reader can stop.
    pub fn piped_log(&self) -> bool {
        self.attack == Attack::StalledLog
    }
}

/// All of them, each with its name and its title. `smoke` is for seeing that they work.
pub fn all(smoke: bool) -> Vec<(&'static str, &'static str, Hostile)> {
    use Attack as A;
    use Flood as F;
    // What ends by a time-out of 30 s is watched for longer.
    let all: [(_, _, _, usize, u64); 18] = [
        ("hostile-none", "no attack", A::None, 0, 10),
        ("hostile-log", "(1) nobody reads the log", A::StalledLog, 0, 20),
        ("hostile-refusals", "(2) 401 and 404 with paths of 60 KB, 4 connections", A::Refusals, 4, 10),
        ("hostile-idle", "(3) 4,200 idle HTTP/2 connections that answer pings", A::IdleHttp2, 4200, 40),
        ("hostile-unread-http1", "(3) 200 connections that read no response", A::UnreadHttp1, 200, 40),
        ("hostile-unread-http2", "(3) 100 streams without a window on each of 40 connections", A::UnreadHttp2, 40, 40),
        ("hostile-byte-frames", "(4) frames of one byte, 190 streams, 40 connections", A::ByteFrames, 40, 10),
        ("hostile-hellos", "(5) 3,000 half ClientHellos", A::HalfHellos, 3000, 20),
        ("hostile-streams", "(6) 200 open uploads on each of 100 connections", A::OpenStreams, 100, 40),
        ("hostile-silent", "(9) 5,000 silent connections that reconnect", A::Silent, 5000, 20),
        ("hostile-priority", "(11) PRIORITY, 8 connections", A::Flood(F::Priority), 8, 10),
        ("hostile-window", "(11) WINDOW_UPDATE, 8 connections", A::Flood(F::Window), 8, 10),
        ("hostile-settings", "(11) SETTINGS, 8 connections", A::Flood(F::Settings), 8, 10),
        ("hostile-ping", "(11) PING, 8 connections", A::Flood(F::Ping), 8, 10),
        ("hostile-unknown", "(11) unknown frames, 8 connections", A::Flood(F::Unknown), 8, 10),
        ("hostile-byte-chunks", "(11) chunks of one byte, 8 connections", A::ByteChunks, 8, 10),
        ("hostile-empty-messages", "(11) empty gRPC messages, 8 connections", A::EmptyMessages, 8, 10),
        ("hostile-declared", "(12) 64 uploads that declare up to 5 GiB and send nothing", A::Declared, 64, 10),
    ];
    let scaled = |(name, title, attack, connections, seconds): (&'static str, &'static str, A, usize, u64)| {
        let (connections, time, rest) = if smoke {
            (connections.min(10), Duration::from_millis(500), Duration::from_millis(100))
        } else {
            (connections, Duration::from_secs(seconds), Duration::from_secs(5))
        };
        (name, title, Hostile { attack, connections, time, rest })
    };
    all.map(scaled).to_vec()
}
