//! Questions to the ports of Agent Router on this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most that is read of an answer.
const ANSWER_MAX: u64 = 1 << 20;

/// The status and the body of an answer; none where there is no answer.
pub(crate) async fn ask(port: u16, method: &str, path: &str) -> Option<(u16, String)> {
    timeout(PATIENCE, ask_patiently(port, method, path)).await.ok()?.ok()?
}

async fn ask_patiently(port: u16, method: &str, path: &str) -> std::io::Result<Option<(u16, String)>> {
    let mut stream = TcpStream::connect(address(port)).await?;
    // A request of the smallest kind: its answer ends with the connection.
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
    Ok(parse(&String::from_utf8_lossy(&answer)))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// The first of these ports that somebody uses.
pub(crate) async fn first_taken(ports: impl IntoIterator<Item = u16>) -> Option<u16> {
    for port in ports {
        if TcpListener::bind(address(port)).await.is_err() {
            return Some(port);
        }
    }
    None
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The sum of what Envoy's statistics say, a `name: number` a line.
pub(crate) fn sum(stats: &str, suffix: &str) -> u64 {
    let lines = stats.lines().filter_map(|line| line.split_once(": "));
    let numbers =
        lines.filter(|(name, _)| name.ends_with(suffix)).map(|(_, number)| number.trim().parse::<u64>());
    numbers.map(Result::unwrap_or_default).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nLIVE\n";
        assert_eq!(parse(answer), Some((200, "LIVE\n".to_owned())));
        assert_eq!(parse("HTTP/1.1 200 OK\r\n"), None);
        assert_eq!(parse("SSH-2.0\r\n\r\n"), None);
    }

    #[test]
    fn statistics_add_up() {
        let stats = "http.http-1975.downstream_rq_active: 2\nhttp.http-10088.downstream_rq_active: 1\nx: 7\n";
        assert_eq!(sum(stats, "downstream_rq_active"), 3);
    }
}
