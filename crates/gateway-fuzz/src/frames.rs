//! Bodies in the framing of the rpc protocols, whole and cut into pieces.

use bytes::Bytes;
use http::{Request, Version};

use crate::answer::{Asked, check, has_flags};
use crate::world::{Answer, GATEWAY, send};

const TYPES: [&str; 8] = [
    "application/grpc",
    "application/grpc+json",
    "application/grpc-web+proto",
    "application/grpc-web-text",
    "application/connect+proto",
    "application/connect+json",
    "application/proto",
    "application/json",
];
const METHODS: [&str; 8] =
    ["Create", "Count", "Upload", "GetBook", "Fail", "UpdateBook", "NotThere", "DeleteItem"];
const ENCODINGS: [&str; 8] = ["identity", "gzip", "br", "zstd", "gzip", "br", "zstd", "deflate"];

/// The first two bytes choose the content type, the method, the encoding, and how the rest is cut.
pub(crate) fn run(data: &[u8]) {
    let Some((&[how, cut], body)) = data.split_first_chunk() else { return };
    let content_type = TYPES[usize::from(how & 7)];
    let method = METHODS[usize::from(how >> 3 & 7)];
    let encoding = ENCODINGS[usize::from(cut & 7)];
    let ask = |chunks: Vec<Bytes>| -> Answer {
        let mut request = Request::post(format!("/gateway.test.v1.Echo/{method}"))
            .version(Version::HTTP_2)
            .header("content-type", content_type)
            .header("grpc-accept-encoding", "br,gzip,zstd")
            .header("connect-accept-encoding", "zstd");
        for header in ["grpc-encoding", "content-encoding", "connect-content-encoding"] {
            request = request.header(header, encoding);
        }
        send(GATEWAY.clone(), request.body(()).expect("a request"), chunks)
    };
    let asked = Asked { has_flags: has_flags(content_type, body), ..Asked::default() };
    let whole = ask(vec![Bytes::copy_from_slice(body)]);
    let is_fine = check(asked, &whole);
    let cut = ask(body.chunks(usize::from(cut >> 3) + 1).map(Bytes::copy_from_slice).collect());
    // Of several faults in a body, the one that is told may be another.
    if check(asked, &cut) || is_fine {
        assert_eq!(whole, cut, "how a body is cut is nobody's business");
    }
}
