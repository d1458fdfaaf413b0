//! What a connection may cost.

use std::time::Duration;

/// The bounds of a listener. The defaults suit a server that anybody can reach.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once. More wait in the queue of the system until one ends.
    pub connections: usize,
    /// TLS handshakes at once; more wait for their turn, as part of `handshake`.
    pub handshakes: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a connection may take to begin, and how long the head of an HTTP/1.1 request may take. A connection
    /// that is kept alive may be idle for as long. More than the 60 to 90 s that clients and load balancers keep idle
    /// connections for by default, so that none of them sends a request on one that is being closed.
    pub head: Duration,
    /// Bytes of the fields of a request's head. More is answered with 431.
    pub head_bytes: u32,
    /// Fields of an HTTP/1.1 request's head. More is answered with 431.
    pub head_fields: usize,
    /// How long bytes may wait for a peer that does not read. The connection ends then.
    pub stalled_write: Duration,
    /// Requests at once on an HTTP/2 connection.
    pub streams: u32,
    /// Streams that a client may reset before the server has seen them. More end the connection: it is a flood.
    pub pending_resets: usize,
    /// Streams that the server resets for a client's mistakes. More end the connection.
    pub error_resets: usize,
    /// Bytes that may be on their way to the server on one HTTP/2 stream.
    pub stream_window: u32,
    /// The same for all streams of a connection.
    pub connection_window: u32,
    /// How long an HTTP/2 connection may be silent before it is asked whether it is still there. None: never asked.
    pub ping_interval: Option<Duration>,
    /// How long it may take to say so.
    pub ping_timeout: Duration,
    /// When a connection is told to go. None: as late as it likes.
    pub age: Option<MaxAge>,
}

/// The life of a connection, so that clients spread over servers that were added.
#[derive(Debug, Clone, Copy)]
pub struct MaxAge {
    /// When it is told to go, a tenth more or less: not all at once.
    pub age: Duration,
    /// How long its calls may go on afterwards.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            handshakes: 256,
            handshake: Duration::from_secs(10),
            head: Duration::from_mins(2),
            head_bytes: 32 << 10,
            head_fields: 100,
            stalled_write: Duration::from_mins(1),
            streams: 200,
            pending_resets: 20,
            error_resets: 1024,
            stream_window: 1 << 20,
            connection_window: 1 << 20,
            ping_interval: Some(Duration::from_secs(30)),
            ping_timeout: Duration::from_secs(20),
            age: None,
        }
    }
}

impl MaxAge {
    /// The life of one connection; `spread` is from 0 to 1.
    pub(crate) fn spread(self, spread: f64) -> Duration {
        self.age.mul_f64(0.9 + 0.2 * spread.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A12 #115: not all connections go at once.
    #[test]
    fn ages_are_spread_by_a_tenth() {
        let age = MaxAge { age: Duration::from_secs(100), grace: Duration::ZERO };
        assert_eq!([0.0, 0.5, 1.0].map(|spread| age.spread(spread).as_millis() / 1000), [90, 100, 110]);
    }
}
