//! What every request passes before anything of it is understood, whatever its protocol: limits of its head, time for
//! its body, CORS, headers that keep browsers careful, and an answer where all else panics.
//!
//! Two services, since they sit in two places. [`Timely`] is the outermost and sees bodies as they come from the
//! connection; [`EdgeLayer`] goes inside of what gives requests their ids. Knows no service; what a refusal looks like in
//! the caller's protocol is the gateway's.
//!
//! Not here, on purpose: bounds on calls and their rates, which need the method and the caller (`rpc`), and those of
//! connections (`listener`).

mod body;
mod cors;
mod forwarded;
mod head;
mod layer;
mod security;

pub use body::{BodyPace, Timely};
pub use cors::{Cors, CorsError, Methods};
pub use forwarded::client_address;
pub use head::HeadLimits;
pub use layer::{Edge, EdgeLayer};
