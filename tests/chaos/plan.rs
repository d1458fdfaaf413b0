//! What goes wrong, and when: the same for the same seed.

use std::time::Duration;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blow {
    /// A server is killed, or told to stop, and comes back later.
    Server { index: usize, gently: bool, down: Duration },
    /// The database loses power, and comes back later.
    Database { down: Duration },
    /// The database ends every connection.
    Connections,
    /// As many workers die.
    Workers { count: usize },
}

/// One after the other, each with the pause before it.
pub(crate) fn plan(rng: &mut fastrand::Rng, length: Duration, servers: usize) -> Vec<(Duration, Blow)> {
    let mut blows = Vec::new();
    let mut at = Duration::ZERO;
    loop {
        let pause = Duration::from_millis(rng.u64(300..2_000));
        at += pause;
        if at > length {
            return blows;
        }
        let down = Duration::from_millis(rng.u64(50..2_500));
        blows.push((
            pause,
            match rng.u8(..10) {
                0..4 => Blow::Server { index: rng.usize(..servers), gently: rng.u8(..4) == 0, down },
                4..6 => Blow::Database { down },
                6 => Blow::Connections,
                _ => Blow::Workers { count: rng.usize(1..12) },
            },
        ));
    }
}
